"""Download: fetch an archive, check it, unpack it beside its place, and move it there when all is well.

A call that was broken off is finished by the next one; nothing half-unpacked ever lies in the place itself.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from soundsight.datasets.fetch import FullDisk, Progress, discard, fetch, md5_of
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
    if (place / record.table).is_file():
        _keep(place, record, checksums, progress)
        _sweep(place, record)
        return place
    with _locked(place):
        if archive:
            _check_archive(Path(archive), record, checksums, progress)
            _install(Path(archive), place, record, checksums, progress)
            return place
        file = _part(place, record)
        fetch(
            archive_url(record, mirror),
            file,
            size=record.size if checksums else None,
            md5=record.md5 if checksums else None,
            limit=ARCHIVE_LIMIT,
            progress=progress,
        )
        try:
            _install(file, place, record, checksums, progress)
        except FullDisk:
            raise
        except DatasetError:
            discard(file)  # the same would happen again
            raise
        discard(file)
    return place


def _part(place: Path, record: Published) -> Path:
    """Where an archive is fetched to."""
    return place.parent / f"{record.archive}.part"


def _sweep(place: Path, record: Published) -> None:
    """Remove what a call left behind that was killed after its work was done, unless another one is at work."""
    if (place.parent / _lock_name(place)).exists() and os.access(place.parent, os.W_OK):
        with _locked(place):
            discard(_part(place, record))
            shutil.rmtree(_temporary(place), ignore_errors=True)


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


def _check_archive(file: Path, record: Published, checksums: bool, progress: Progress | None) -> None:
    """Compare an archive that someone brought with what is known of it."""
    if not checksums or record.md5 is None:
        return
    size = file.stat().st_size
    if record.size is not None and size != record.size:
        raise DatasetError(
            f"{file} has {size} bytes, but its publisher names {record.size}; it was cut or repacked, so "
            "fetch it again, or go on with --no-checksums."
        )
    if (digest := md5_of(file, progress)) != record.md5:
        raise DatasetError(
            f"{file} was altered: its MD5 is {digest}, but its publisher names {record.md5}; fetch it again, "
            "or go on with --no-checksums."
        )


def _install(archive: Path, place: Path, record: Published, checksums: bool, progress: Progress | None) -> None:
    """Unpack beside the place, check there, and move."""
    temporary = _temporary(place)
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed run
    try:
        temporary.mkdir()
        unpack(archive, temporary, limit=record.unpacked_limit, progress=progress)
        found = _find(temporary, record, archive)
        check(found, record, checksums=checksums, progress=progress)
        _place(found, place, record)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _find(folder: Path, record: Published, archive: Path) -> Path:
    """The folder in an unpacked archive that holds the data set."""
    for candidate in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if (candidate / record.table).is_file():
            return candidate
    raise DatasetError(f"{archive} holds no {record.table}, so it is not {record.title.partition(':')[0]}.")


def _place(found: Path, place: Path, record: Published) -> None:
    """Move a checked data set to its place; what else lies there (images, notes) stays.

    Raises:
        ConfigError: A file there would be overwritten by another one.
    """
    if not place.exists() or not any(place.iterdir()):
        if place.exists():
            place.rmdir()
        found.rename(place)
        return
    # The folder of the table goes last: without it nothing takes the place for a data set.
    last = Path(record.table).parts[0]
    entries = sorted(found.iterdir(), key=lambda path: (path.name == last, path.name))
    for entry in entries:
        _refuse_strangers(place / entry.name, entry)
    for entry in entries:
        former = place / entry.name
        if former.is_dir() and not former.is_symlink():
            shutil.rmtree(former)
        else:
            former.unlink(missing_ok=True)
        entry.rename(former)


def _refuse_strangers(former: Path, new: Path) -> None:
    """Only what a broken-off call left may be replaced: the very same files, if not all of them."""
    files = [former] if former.is_file() else [path for path in former.rglob("*") if path.is_file()]
    for path in files:
        twin = new / path.relative_to(former) if former.is_dir() else new
        if not twin.is_file() or not filecmp.cmp(path, twin, shallow=False):
            raise ConfigError(
                f"{path} is not part of the data set and would be lost; move it away, or set root=FOLDER."
            )


def _temporary(place: Path) -> Path:
    return place.parent / f"{TEMP_PREFIX}{place.name}"


def _lock_name(place: Path) -> str:
    return f"{TEMP_PREFIX}{place.name}.lock"


def _locked(place: Path) -> AbstractContextManager[None]:
    """One download to a place at a time."""
    busy = f"Another download to {place} is running; wait until it ends."
    return locked(place.parent, name=_lock_name(place), busy=busy)
