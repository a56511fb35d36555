"""One file over HTTP that goes on after a break.

What has arrived lies in the file itself, and where it came from in `NAME.json` beside it. The libraries of
the field that fetch files start over after a break, so this speaks HTTP ranges itself (RFC 9110, sections
13.1.5 and 14) through `requests`, which honours the proxies of the environment.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from soundsight.errors import ConfigError, DatasetError
from soundsight.files import TEMP_PREFIX, printable, read_json

if TYPE_CHECKING:
    import requests

Progress = Callable[[str, int, int], None]  # (what is done, units done, units in all or 0)

TRIES = 5  # in a row without a byte more than before
PAUSE_SECONDS = 1.0  # after the first break; doubled after each further one
TIMEOUT_SECONDS = (10.0, 60.0)  # to connect, and between two pieces
CHUNK = 256 * 1024


class FullDisk(DatasetError):
    """The disk is full; what has arrived is still of use."""


class _Break(Exception):
    """The transfer ended early; another try may go on from there."""


def fetch(
    url: str,
    file: Path,
    *,
    size: int | None = None,
    md5: str | None = None,
    limit: int,
    progress: Progress | None = None,
) -> None:
    """Fetch `url` into `file`, going on where a former call was broken off.

    Size in bytes and MD5 are compared where they are known beforehand; more than `limit` bytes are refused. `progress`
    gets ("download", bytes done, bytes in all or 0), later "check". The file is whole only when this returns; after an
    error what arrived stays for the next call, unless it is of no use.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        host = None
    if not host:
        raise ConfigError(f"{shown_url(url)!r} cannot be downloaded; an address begins with http:// or https://.")
    with disk_of(file.parent):
        _Transfer(url, file, size, md5, limit, progress, printable(host)).run()


def shown_url(url: str) -> str:
    """An address for people, files and logs: without a user's name and password, and the values of its query."""
    address, asks, query = url.partition("#")[0].partition("?")
    scheme, slashes, rest = address.rpartition("://")
    host, slash, path = rest.partition("/")
    names = "&".join(f"{part.partition('=')[0]}=..." for part in query.split("&") if part)
    return printable(f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}{asks}{names}")


def discard(file: Path) -> None:
    """Delete a file that `fetch` made, and its record."""
    for path in (file, _record(file), _draft(file)):
        path.unlink(missing_ok=True)


@contextmanager
def disk_of(folder: Path) -> Iterator[None]:
    """Raise `FullDisk` where the disk that holds a folder fills up."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise FullDisk(f"The disk that holds {folder} is full; free some space and run the command again.") from error


def check_space(folder: Path, wanted: int) -> None:
    """Raise `FullDisk` unless a disk has space for so many bytes."""
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise FullDisk(
            f"The disk that holds {folder} is too full: {wanted / 1e9:.1f} GB are needed and "
            f"{free / 1e9:.1f} GB are free; free some space, or choose another place with root=FOLDER."
        )


def check_md5(name: object, path: Path, md5: str | None, progress: Progress | None, otherwise: str) -> None:
    """Raise `DatasetError`, which ends in `otherwise`, for a file (`name`, for people) that was altered."""
    if md5 is None:
        return
    digest, done, total = hashlib.md5(usedforsecurity=False), 0, path.stat().st_size
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress("check", done, total)
    if digest.hexdigest() != md5:
        raise DatasetError(
            f"{name} was altered: its MD5 is {digest.hexdigest()}, but its publisher names {md5}; {otherwise}."
        )


@dataclass
class _Transfer:
    """One download with all its tries."""

    url: str
    file: Path
    size: int | None
    md5: str | None
    limit: int
    progress: Progress | None
    host: str
    answered: bool = False
    # What the first response said: the shown address, a strong ETag or a date as `validator`, and bytes in all.
    origin: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shown = shown_url(self.url)
        with suppress(OSError, ValueError, TypeError):
            self.origin = dict(read_json(_record(self.file)))
        if self.origin.get("url") != self.shown or not self.file.is_file():  # a part of other origin is of no use
            self._discard()

    def run(self) -> None:
        """Try until all is there, or until several tries in a row brought nothing new, and check what came."""
        furthest, failed = self._have(), 0
        while not self.origin or self.origin.get("total") != self._have():
            try:
                self._attempt()
                break
            except _Break as reason:
                if self._have() > furthest:
                    furthest, failed = self._have(), 0
                failed += 1
                if failed >= TRIES:
                    raise DatasetError(self._gave_up(str(reason))) from reason.__cause__
            time.sleep(min(PAUSE_SECONDS * 2 ** (failed - 1), 30))
        self._check_size(self._have(), whole=True)
        try:
            check_md5(self.shown, self.file, self.md5, self.progress, "try again, or name another mirror")
        except DatasetError:
            self._discard()
            raise

    def _attempt(self) -> None:
        import requests

        try:
            with requests.get(self.url, headers=self._headers(), stream=True, timeout=TIMEOUT_SECONDS) as response:
                self.answered = True
                done, total = self._receive(response)
        except (requests.exceptions.RequestException, ValueError) as error:  # ValueError: a redirection to nonsense
            reason = _reason(error)
            if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
                raise ConfigError(f"{self.shown!r} cannot be downloaded ({reason}).") from error
            if isinstance(error, requests.exceptions.SSLError) and "certificate" in reason:
                raise DatasetError(f"{self.host} cannot be trusted ({reason}); nothing was fetched.") from error
            if isinstance(error, requests.exceptions.TooManyRedirects):
                raise DatasetError(f"{self.shown} leads in circles; name another mirror.") from error
            raise _Break(reason) from error
        if total is not None and done < total:
            raise _Break(f"it ended at byte {done} of {total}")
        self._note(total=done)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity", "User-Agent": "soundsight"}
        have, validator = self._have(), self.origin.get("validator")
        # Without a version tag, a file could change under us: then only a checksum permits going on.
        if have and self.origin and (validator or self.md5):
            headers["Range"] = f"bytes={have}-"
            if validator:
                headers["If-Range"] = validator
        return headers

    def _receive(self, response: requests.Response) -> tuple[int, int | None]:
        """Write the body where it belongs; the size of the file afterwards, and of the whole if that is told."""
        start, total = self._judge(response)
        with open(self.file, "r+b" if start else "wb") as file:
            file.seek(start)
            for chunk in response.iter_content(CHUNK):
                start += len(chunk)
                self._check_size(start)
                file.write(chunk)
                if self.progress:
                    self.progress("download", start, total or 0)
        return start, total

    def _judge(self, response: requests.Response) -> tuple[int, int | None]:
        """Where the body of a response belongs in the file, and the size of the whole file if that is told."""
        status, headers = response.status_code, response.headers
        if status in (408, 425, 429) or status >= 500:
            raise _Break(f"the server replied HTTP {status}")
        if status not in (200, 206, 416):
            raise DatasetError(
                f"{self.shown} cannot be had (HTTP {status} {printable(response.reason)}); name a mirror=ADDRESS, or "
                "fetch the file by other means and give it with --archive FILE."
            )
        have = self._have() if status == 206 else 0
        length = headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() and "Content-Encoding" not in headers else None
        if status != 200:
            part = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
            total, known = int(part[2]) if part and part[2] != "*" else None, self.origin.get("total")
            if status == 416 or not part or int(part[1]) != have or (known and total and total != known):
                self._discard()
                raise _Break("the server has no such part of the file, or sent another one")
            total = total or known
        if total is not None:  # what is too long, or does not fit on the disk, is refused before it is fetched
            self._check_size(total, whole=True)
            check_space(self.file.parent, total - have)
        if status == 200:
            self._discard()  # the server cannot go on, or has another version by now
            etag = headers.get("ETag", "")
            validator = etag if etag.startswith('"') else headers.get("Last-Modified", "")
            fit = re.fullmatch(r"[ -~]{1,200}", validator)  # it is sent back as a header
            self._note(validator=validator if fit else "", total=total)
        return have, total

    def _check_size(self, found: int, *, whole: bool = False) -> None:
        """Refuse, and delete, what is too long, or of the wrong size now that it is `whole`."""
        if whole and self.size is not None and found != self.size:
            self._discard()
            raise DatasetError(
                f"{self.shown} has {found} bytes, but its publisher names {self.size}; it was cut or replaced, "
                "so try again later, or name another mirror."
            )
        if found > (self.size or self.limit):
            self._discard()
            raise DatasetError(
                f"{self.shown} sends {found} bytes or more, but at most {self.size or self.limit} are expected; "
                "it is not the data set, so name another mirror."
            )

    def _gave_up(self, reason: str) -> str:
        if not self.answered:
            return (
                f"There is no connection to {self.host} ({reason}); check the network, set HTTPS_PROXY or "
                "mirror=ADDRESS, or give the file with --archive FILE."
            )
        kept = f"the {self._have() / 1e6:.1f} MB so far are kept, so run the command again to go on"
        then = kept if self._have() else "try again later, or name another mirror"
        return f"The download from {self.host} broke {TRIES} times in a row ({reason}); {then}."

    def _note(self, **told: Any) -> None:
        self.origin |= {"url": self.shown, **told}
        _draft(self.file).write_text(json.dumps(self.origin), encoding="utf-8")
        _draft(self.file).replace(_record(self.file))

    def _have(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def _discard(self) -> None:
        discard(self.file)
        self.origin = {}


def _record(file: Path) -> Path:
    return file.with_name(file.name + ".json")


def _draft(file: Path) -> Path:  # always the same, so that the next call finds what a killed one left
    return file.with_name(f"{TEMP_PREFIX}{file.name}.json")


def _reason(error: BaseException) -> str:
    """The system's words at the root of wrapped errors, without the secrets of addresses in them."""
    for _ in range(20):
        wrapped = (*error.args, getattr(error, "reason", None), error.__cause__, error.__context__)
        inner = next((found for found in wrapped if isinstance(found, BaseException)), None)
        if inner is None or (isinstance(error, OSError) and error.strerror):
            break
        error = inner
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(re.sub(r"\?[^\s'\")]+", "?...", re.sub(r"//[^/\s]*@", "//", text.strip().rstrip("."))))
