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
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
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
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class FullDisk(DatasetError):
    """The disk is full; what has arrived is still of use."""


@dataclass(frozen=True)
class _Origin:
    """What the first response said of the file that is being fetched."""

    url: str  # as `shown_url` gives it
    validator: str  # strong ETag or date of the last change; empty: none
    total: int | None  # bytes; None: not told


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

    Args:
        url: http or https.
        file: Where to; its folder must exist. It is whole only when this function returns.
        size: Its size in bytes, where it is known beforehand.
        md5: Its MD5, where it is known beforehand.
        limit: More bytes than this are refused.
        progress: Called with ("download", bytes done, bytes in all or 0), later with "check".

    Raises:
        ConfigError: The address is no http or https address.
        DatasetError: No connection, an error of the server, a broken, short, long or altered file, or a full
            disk. What arrived stays for the next call, unless it is of no use.
    """
    if not _is_address(url):
        raise ConfigError(f"{shown_url(url)!r} cannot be downloaded; an address begins with http:// or https://.")
    try:
        transfer = _Transfer(url, file, size, md5, limit, progress)
        transfer.run()
        transfer.check()
    except OSError as error:
        if error.errno in FULL_DISK:
            raise FullDisk(
                f"The disk that holds {file.parent} is full; free some space and run the command again."
            ) from error
        raise


def _is_address(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname)
    except ValueError:
        return False


def shown_url(url: str) -> str:
    """An address for people, files and logs: without a user's name and password, and the values of its query."""
    address, asks, query = url.partition("#")[0].partition("?")
    scheme, slashes, rest = address.rpartition("://")
    host, slash, path = rest.partition("/")
    names = "&".join(f"{part.partition('=')[0]}=..." for part in query.split("&") if part)
    return printable(f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}{asks}{names}")


def _without_secrets(text: str) -> str:
    """A library's words without what addresses in them may hold: passwords, and the values of queries."""
    return printable(re.sub(r"\?[^\s'\")]+", "?...", re.sub(r"//[^/\s]*@", "//", text)))


def discard(file: Path) -> None:
    """Delete a file that `fetch` made, and its record."""
    for path in (file, _record(file), _draft(file)):
        path.unlink(missing_ok=True)


def check_space(folder: Path, wanted: int) -> None:
    """Make sure that a disk has space for so many bytes.

    Raises:
        FullDisk: It has not.
    """
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise FullDisk(
            f"The disk that holds {folder} is too full: {wanted / 1e9:.1f} GB are needed and "
            f"{free / 1e9:.1f} GB are free; free some space, or choose another place with root=FOLDER."
        )


def md5_of(path: Path, progress: Progress | None = None) -> str:
    """MD5 of a file, in hexadecimal."""
    digest, done, total = hashlib.md5(usedforsecurity=False), 0, path.stat().st_size
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress("check", done, total)
    return digest.hexdigest()


class _Transfer:
    """One download with all its tries."""

    def __init__(
        self, url: str, file: Path, size: int | None, md5: str | None, limit: int, progress: Progress | None
    ) -> None:
        self.url, self.file, self.size, self.md5, self.limit = url, file, size, md5, limit
        self.shown = shown_url(url)
        self.progress = progress
        self.host = printable(urlsplit(url).hostname or "")
        self.answered = False
        self.origin = self._former_origin()

    def run(self) -> None:
        """Try until all is there, or until several tries in a row brought nothing new."""
        if self.origin is not None and self.origin.total == self._have():
            return
        furthest, failed = self._have(), 0
        while True:
            try:
                self._attempt()
                return
            except _Break as reason:
                if self._have() > furthest:
                    furthest, failed = self._have(), 0
                failed += 1
                if failed >= TRIES:
                    raise DatasetError(self._gave_up(str(reason))) from reason.__cause__
            time.sleep(min(PAUSE_SECONDS * 2 ** (failed - 1), 30))

    def check(self) -> None:
        """Compare size and MD5 with what is known; a file that differs is of no use and goes."""
        self._check_size(self._have())
        if self.md5 is not None and (digest := md5_of(self.file, self.progress)) != self.md5:
            discard(self.file)
            raise DatasetError(
                f"{self.shown} was altered: its MD5 is {digest}, but its publisher names {self.md5}; "
                "try again, or name another mirror."
            )

    def _attempt(self) -> None:
        import requests

        try:
            with requests.get(self.url, headers=self._headers(), stream=True, timeout=TIMEOUT_SECONDS) as response:
                self.answered = True
                start, total = self._accept(response)
                done = self._receive(response, start, total)
        except (requests.exceptions.RequestException, ValueError) as error:  # ValueError: a redirection to nonsense
            reason = _without_secrets(_reason(error))
            if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
                raise ConfigError(f"{self.shown!r} cannot be downloaded ({reason}).") from error
            if isinstance(error, requests.exceptions.SSLError) and "certificate" in reason:
                raise DatasetError(f"{self.host} cannot be trusted ({reason}); nothing was fetched.") from error
            if isinstance(error, requests.exceptions.TooManyRedirects):
                raise DatasetError(f"{self.shown} leads in circles; name another mirror.") from error
            raise _Break(reason) from error
        if total is not None and done < total:
            raise _Break(f"it ended at byte {done} of {total}")
        self._note(replace(self.origin or _Origin(self.shown, "", None), total=done))

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity", "User-Agent": "soundsight"}
        have = self._have()
        # Without a version tag, a file could change under us: then only a checksum permits going on.
        if have and self.origin and (self.origin.validator or self.md5):
            headers["Range"] = f"bytes={have}-"
            if self.origin.validator:
                headers["If-Range"] = self.origin.validator
        return headers

    def _accept(self, response: requests.Response) -> tuple[int, int | None]:
        """Judge a response.

        Returns:
            Where its body belongs in the file, and the size of the whole file if that is told.
        """
        status = response.status_code
        if status == 206:
            return self._accept_part(response.headers.get("Content-Range", ""))
        if status == 416:
            self._discard()
            raise _Break("the server has no more of the file than is here")
        if status in (408, 425, 429) or status >= 500:
            raise _Break(f"the server replied HTTP {status}")
        if status != 200:
            raise DatasetError(
                f"{self.shown} cannot be had (HTTP {status} {printable(response.reason)}); name a mirror=ADDRESS, or "
                "fetch the file by other means and give it with --archive FILE."
            )
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() and "Content-Encoding" not in response.headers else None
        etag = response.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        validator = validator if re.fullmatch(r"[ -~]{1,200}", validator) else ""  # it is sent back as a header
        self._check_room(0, total)
        self._discard()  # the server cannot go on, or has another version by now
        self._note(_Origin(self.shown, validator, total))
        return 0, total

    def _accept_part(self, content_range: str) -> tuple[int, int | None]:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
        total = int(match[2]) if match and match[2] != "*" else None
        known = self.origin.total if self.origin else None
        if not match or int(match[1]) != self._have() or (known and total and total != known):
            self._discard()
            raise _Break("the server sent another part of the file than was asked for")
        self._check_room(self._have(), total)
        return self._have(), total or known

    def _receive(self, response: requests.Response, start: int, total: int | None) -> int:
        """Write the body; the size of the file afterwards."""
        with open(self.file, "r+b" if start else "wb") as file:
            file.seek(start)
            for chunk in response.iter_content(CHUNK):
                start += len(chunk)
                if start > (self.size or self.limit):
                    raise DatasetError(self._too_long(start))
                file.write(chunk)
                if self.progress:
                    self.progress("download", start, total or 0)
        return start

    def _check_room(self, start: int, total: int | None) -> None:
        """Refuse what is too long, or does not fit on the disk, before it is fetched."""
        if total is not None:
            self._check_size(total)
            if total > self.limit:
                raise DatasetError(self._too_long(total))
            check_space(self.file.parent, total - start)

    def _check_size(self, found: int) -> None:
        if self.size is not None and found != self.size:
            self._discard()
            raise DatasetError(
                f"{self.shown} has {found} bytes, but its publisher names {self.size}; it was cut or replaced, "
                "so try again later, or name another mirror."
            )

    def _too_long(self, found: int) -> str:
        self._discard()
        return (
            f"{self.shown} sends {found} bytes or more, but at most {self.size or self.limit} are expected; "
            "it is not the data set, so name another mirror."
        )

    def _gave_up(self, reason: str) -> str:
        have = self._have()
        if not self.answered:
            return (
                f"There is no connection to {self.host} ({reason}); check the network, set HTTPS_PROXY or "
                "mirror=ADDRESS, or give the file with --archive FILE."
            )
        next_step = f"the {have / 1e6:.1f} MB so far are kept, so run the command again to go on"
        if not have:
            next_step = "try again later, or name another mirror"
        return f"The download from {self.host} broke {TRIES} times in a row ({reason}); {next_step}."

    def _former_origin(self) -> _Origin | None:
        """Where the part that is here came from; a part of unknown or other origin is of no use."""
        try:
            origin = _Origin(**read_json(_record(self.file)))
        except (OSError, ValueError, TypeError):
            origin = None
        if origin is None or origin.url != self.shown or not self.file.is_file():
            discard(self.file)
            return None
        return origin

    def _note(self, origin: _Origin) -> None:
        self.origin = origin
        _draft(self.file).write_text(json.dumps(asdict(origin)), encoding="utf-8")
        _draft(self.file).replace(_record(self.file))

    def _have(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def _discard(self) -> None:
        discard(self.file)
        self.origin = None


def _record(file: Path) -> Path:
    return file.with_name(file.name + ".json")


def _draft(file: Path) -> Path:  # always the same, so that the next call finds what a killed one left
    return file.with_name(f"{TEMP_PREFIX}{file.name}.json")


def _reason(error: BaseException) -> str:
    """The system's own words at the root of a chain of wrapped errors."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        if isinstance(current, OSError) and current.strerror:
            return current.strerror
        wrapped = (*current.args, getattr(current, "reason", None))
        inner = [item for item in wrapped if isinstance(item, BaseException)]
        current = inner[0] if inner else current.__cause__ or current.__context__
    return (str(seen[-1]) or type(seen[-1]).__name__).strip().rstrip(".")
