"""Download: fetch an archive, check it, unpack it beside its place, and move it there when all is well.

A call that was broken off is finished by the next one; nothing half-unpacked ever lies in the place itself.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from soundsight.datasets.fetch import FullDisk, Progress, check_md5, discard, fetch
from soundsight.datasets.published import Published, check, datasets, notice, published
from soundsight.datasets.unpack import unpack
from soundsight.errors import ConfigError, DatasetError
from soundsight.files import TEMP_PREFIX, locked

__all__ = ["datasets", "download", "notice"]

ARCHIVE_LIMIT = 8 << 30  # bytes, for archives whose size is not known beforehand


def download(
    name: str,
    *,
    root: str | Path | None = None,
    archive: str | Path | None = None,
    mirror: str | None = None,
    checksums: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Bring a published data set onto this machine.

    Args:
        name: "esc50", "esc10" (a part of ESC-50, so the same files) or "urbansound8k".
        root: Where to; `None` takes the place that `configs/` names.
        archive: An archive that is here already, instead of fetching one; it is only read.
        mirror: Another address: of the archive, or of the folder that holds it under its usual name.
        checksums: Compare MD5 of archive or recordings; sizes, counts and headers are checked in any case.
        progress: Called with ("download" | "check" | "unpack", units done, units in all or 0).

    Returns:
        The folder. If it holds the whole data set already, nothing is fetched.

    Raises:
        ConfigError: No such data set or archive, or the folder cannot be written.
        DatasetError: The data set could not be fetched whole, or something else lies in its place.
    """
    record = published(name)
    place = Path(root or record.root)
    place = place.resolve() if place.is_symlink() else place
    if place.exists() and not place.is_dir():
        raise ConfigError(f"{place} is a file; set root=FOLDER.")
    if archive and not Path(archive).is_file():
        raise ConfigError(f"The archive {archive} does not exist; name a file downloaded from {record.url}.")
    part, temporary = place.parent / f"{record.archive}.part", place.parent / f"{TEMP_PREFIX}{place.name}"
    if (place / record.table).is_file():
        _keep(place, record, checksums, progress)
        if temporary.with_name(f"{temporary.name}.lock").exists() and os.access(place.parent, os.W_OK):
            with _locked(place):  # a call was killed after its work was done
                discard(part)
                shutil.rmtree(temporary, ignore_errors=True)
        return place
    size, md5 = (record.size, record.md5) if checksums else (None, None)
    with _locked(place):
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed run
        try:
            if archive:
                _check_brought(Path(archive), size, md5, progress)
            else:
                fetch(archive_url(record, mirror), part, size=size, md5=md5, limit=ARCHIVE_LIMIT, progress=progress)
            temporary.mkdir()
            source = Path(archive or part)
            unpack(source, temporary, limit=record.unpacked_limit, progress=progress)
            found = _find(temporary, record, source)
            check(found, record, checksums=checksums, progress=progress)
            _place(found, place, record)
        except DatasetError as error:
            if not isinstance(error, FullDisk) and not archive and temporary.exists():
                discard(part)  # the same would happen again
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        discard(part)
    return place


def archive_url(record: Published, mirror: str | None) -> str:
    """Address of an archive, from its publisher or from a mirror."""
    if not mirror:
        return record.url
    address, asks, query = mirror.partition("?")  # a query may hold a token
    if not address.endswith((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz")):
        address = f"{address.rstrip('/')}/{record.archive}"
    return f"{address}{asks}{query}"


def _keep(place: Path, record: Published, checksums: bool, progress: Progress | None) -> None:
    """Make sure that what lies in the place already is the whole data set."""
    try:
        check(place, record, checksums=checksums, progress=progress)
    except DatasetError as error:
        raise DatasetError(
            f"{place} exists, but {str(error).rstrip('.')}; move {place} away to download it anew, or set root=FOLDER."
        ) from error


def _check_brought(file: Path, size: int | None, md5: str | None, progress: Progress | None) -> None:
    """Compare an archive that someone brought with what is known of it."""
    advice = "fetch it again, or go on with --no-checksums"
    if size is not None and (found := file.stat().st_size) != size:
        raise DatasetError(
            f"{file} has {found} bytes, but its publisher names {size}; it was cut or repacked, so {advice}."
        )
    check_md5(file, file, md5, progress, advice)


def _find(folder: Path, record: Published, archive: Path) -> Path:
    """The folder in an unpacked archive that holds the data set."""
    for candidate in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if (candidate / record.table).is_file():
            return candidate
    raise DatasetError(f"{archive} holds no {record.table}, so it is not {record.name}.")


def _place(found: Path, place: Path, record: Published) -> None:
    """Move a checked data set to its place; what else lies there (images, notes) stays."""
    for path in place.rglob("*") if place.exists() else ():  # a broken-off call left the very same files
        twin = found / path.relative_to(place)
        ours = (found / path.relative_to(place).parts[0]).exists()
        if ours and path.is_file() and not (twin.is_file() and filecmp.cmp(path, twin, shallow=False)):
            raise ConfigError(
                f"{path} is not part of the data set and would be lost; move it away, or set root=FOLDER."
            )
    if not place.exists():
        found.rename(place)
        return
    last = Path(record.table).parts[0]  # without the folder of the table nothing takes the place for a data set
    for entry in sorted(found.iterdir(), key=lambda path: (path.name == last, path.name)):
        former = place / entry.name
        if former.is_dir() and not former.is_symlink():
            shutil.rmtree(former)
        else:
            former.unlink(missing_ok=True)
        entry.rename(former)


def _locked(place: Path) -> AbstractContextManager[None]:
    """One download to a place at a time."""
    busy = f"Another download to {place} is running; wait until it ends."
    return locked(place.parent, name=f"{TEMP_PREFIX}{place.name}.lock", busy=busy)
