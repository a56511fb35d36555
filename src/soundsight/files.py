"""Files that are either whole or absent: temp file, then rename."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import io
import json
import logging
import math
import os
import re
import shutil
import stat
import tempfile
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from soundsight.errors import ConfigError

TEMP_PREFIX = ".tmp-"
# Endings of images that Ultralytics finds, in any case.
IMAGES = frozenset("avif bmp dng heic heif jp2 jpeg jpg mpo png tif tiff webp".split())
LOCK = ".lock"
SCRATCH = "soundsight-serve-"
_DRAFT = re.compile(re.escape(TEMP_PREFIX) + r"(?:([0-9a-f]{12})-)?[0-9a-f]{32}(?:\..*)?", re.DOTALL)
# Characters by which a name could move a terminal's cursor, end a line, or turn the direction of writing.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Lend a draft beside `path`; it takes the place of `path` if the block ends well, else it is removed."""
    path = Path(path)
    draft = path.with_name(f"{TEMP_PREFIX}{_mark(path.name)}-{uuid.uuid4().hex}{path.suffix}")
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ConfigError(f"{path} is a device or a named pipe, which is not replaced; name a file.")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        os.replace(draft, path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror or error}); free some space, or choose another folder."
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink()


def images_in(folder: str | Path) -> list[Path]:
    """All images below a folder, at any depth, in a fixed order."""
    return sorted(path for path in Path(folder).rglob("*.*") if path.suffix[1:].lower() in IMAGES)


def matching(pattern: str, folder: str = "") -> list[str]:
    """What a glob pattern matches below `folder`, sorted; `**` is any depth.

    Part by part, each place once: with `glob.glob` a few dozen `**/` or `*/../` take years.
    """
    parts = Path(pattern).parts
    found = {""}
    for number, part in enumerate(parts):
        if part == "**" and parts[number - 1 : number] == ("**",):
            continue
        wanted = part if number == len(parts) - 1 else os.path.join(part, "")  # a folder
        hits = {
            os.path.join(base, hit)
            for base in found
            for hit in glob.glob(wanted, root_dir=os.path.join(folder, base), recursive=True)
        }
        if part == "..":
            hits = set({os.path.realpath(os.path.join(folder, hit)): hit for hit in sorted(hits)}.values())
        found = hits | found if part == "**" else hits
    return sorted(found - {""})


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write a file atomically, see `replacing`: a reader sees the old content or the new, never a part."""
    with replacing(path) as draft:
        draft.write_bytes(data)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """As `write_bytes`, for UTF-8 text."""
    return write_bytes(path, text.encode("utf-8"))


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV, whose lines end as on Unix."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def read_json(path: str | Path) -> Any:
    """What a JSON file holds."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise FileNotFoundError(errno.ENOENT, "no regular file", str(path))
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source` by hard link, or a copy where links are not possible."""
    with suppress(OSError):
        os.link(source, target)  # whole from the start; fails where `target` or another obstacle is
        return
    with replacing(target) as draft:
        try:
            os.link(source, draft)
        except OSError:
            shutil.copyfile(source, draft)


def remove_drafts(folder: Path, name: str | None = None) -> None:
    """Delete the drafts that killed runs of `replacing` left in a folder, of one file or of all.

    The caller holds the lock under which they were written, so that nobody is at work on them.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _DRAFT.fullmatch(entry.name)
            if found and (name is None or found[1] == _mark(name)) and entry.is_file(follow_symlinks=False):
                os.unlink(entry)


def is_draft(name: str) -> bool:
    """Whether a file of this name is a draft of `replacing`."""
    return _DRAFT.fullmatch(name) is not None


def _mark(name: str) -> str:
    """What a draft's name says of the file that it is for."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:12]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for temporary files of a service; those that killed services of this user left are removed first."""
    user = os.geteuid() if hasattr(os, "geteuid") else 0
    for former in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        with suppress(OSError, ConfigError):
            found = former.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == user and (former / LOCK).is_file():
                with locked(former):  # so its owner has gone
                    shutil.rmtree(former, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, ignore_cleanup_errors=True) as folder, locked(Path(folder)):
        yield Path(folder)


def check_output(
    path: str | Path, made: re.Pattern[bytes] | None, *, inputs: Iterable[str | Path] = (), overwrite: bool = False
) -> None:
    """Refuse to write where something would be lost. The one rule for whatever a command writes.

    Args:
        path: What will be written.
        made: Matches the content of what the same command may have written there before; of a large file the
            first 4 kB and the last MB. `None`: such a file cannot be told from one made by hand.
        inputs: Files and folders that the command reads; none of them is ever written.
        overwrite: Replace any other file.
    """
    path = Path(path)
    try:
        found = os.stat(path)
    except OSError:
        return
    for other in inputs:
        with suppress(OSError, ValueError):
            if os.path.samestat(found, os.stat(other)):
                raise ConfigError(f"{path} is an input of this command; name another file to write.")
    if overwrite or not stat.S_ISREG(found.st_mode) or not found.st_size:
        return
    with open(path, "rb") as file:
        content = file.read(4096)
        file.seek(max(4096, found.st_size - (1 << 20)))
        content += file.read()
    if made is None or not made.search(content):
        why = "could be somebody's work" if made is None else "was not made by this command"
        raise ConfigError(f"{path} exists and {why}; name another file, or replace it with --overwrite.")


@contextmanager
def claimed(
    paths: Sequence[str | Path],
    made: re.Pattern[bytes] | None,
    *,
    inputs: Iterable[str | Path] = (),
    overwrite: bool = False,
) -> Iterator[None]:
    """Keep files of one folder for this command meanwhile, and remove drafts that killed runs left of them."""
    inputs = list(inputs)
    for path in paths:
        check_output(path, made, inputs=inputs, overwrite=overwrite)
    names = [Path(path).name for path in paths]
    if not paths or (os.path.exists(paths[0]) and not os.path.isfile(paths[0])):  # /dev/stdout, a named pipe
        yield
        return
    folder, text = Path(paths[0]).parent, f"{paths[0]}" if len(paths) == 1 else f"{len(paths)} files into {{folder}}"
    with locked(folder, name=f"{TEMP_PREFIX}{_mark('/'.join(names))}.lock", busy=f"Another command writes {text}."):
        for name in names:
            remove_drafts(folder, name)
        yield


def check_folder(path: str | Path, made: str, *, overwrite: bool = False) -> None:
    """The same rule for a folder: it is new, empty, or holds the file `made`, which this command has left before."""
    path = Path(path)
    if overwrite or not path.is_dir() or (path / made).is_file() or not any(path.iterdir()):
        return
    raise ConfigError(
        f"{path} holds files that this command has not made; name a new folder, or write into it with --overwrite."
    )


def remove_empty_folders(root: Path) -> None:
    """Delete all empty folders below `root`, deepest first."""
    for folder, _, _ in os.walk(root, topdown=False):
        with suppress(OSError):  # it holds something
            if folder != str(root):
                os.rmdir(folder)


def printable(name: str | Path) -> str:
    """A path or text for people and tables: control characters, and bytes that are no UTF-8, become `\\x1b`."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def folded(name: str) -> str:
    """What two names must not share on a file system that ignores case and Unicode's ways to write a letter."""
    return unicodedata.normalize("NFC", name.casefold())


@contextmanager
def locked(
    folder: Path,
    *,
    name: str = LOCK,
    busy: str = "Another command is rendering images into {folder}; wait until it has, or choose another folder.",
    seconds: float = 0.0,
) -> Iterator[None]:
    """Hold a folder for one command at a time, by a lock that ends with the process.

    Args:
        folder: Made if it is missing.
        name: Of the lock file; any but `.lock` is removed at the end.
        busy: The message if another holds it.
        seconds: How long to wait for it; infinite is allowed.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / name, poll_interval=0.2)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(folder / name) and not stat.S_ISREG(os.lstat(folder / name).st_mode):
            raise ConfigError(f"{folder / name} is no file of ours but a link or a device; remove it.")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not os.path.lexists(folder / name):  # as in /proc
                raise OSError(errno.EACCES, "no file can be made in it") from None
            if seconds:
                logging.getLogger(__name__).info("Waiting for %s, which another command holds.", folder)
            lock.acquire(timeout=-1 if math.isinf(seconds) else seconds)
    except Timeout:
        raise ConfigError(busy.format(folder=folder)) from None
    except OSError as error:
        raise ConfigError(f"The folder {folder} cannot be written ({error.strerror or error}).") from error
    try:
        yield
    finally:
        if name != LOCK:  # while it is held: who waits for the removed file finds it gone, and makes another
            (folder / name).unlink(missing_ok=True)
        lock.release()


def files_below(folder: str) -> Iterator[str]:
    """Files in a folder and its folders, named with `/` on every system as in the sets they are looked up in."""
    try:
        entries = list(os.scandir(folder))
    except OSError:  # as os.walk does: what cannot be listed holds nothing of ours
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(f"{folder}/{entry.name}")
        else:
            yield f"{folder}/{entry.name}"
