"""Access and limits: an ASGI layer around the routes.

It refuses requests from pages of other origins (so that no web site can use the service of somebody who
visits it), names other than this machine's while bound to loopback (DNS rebinding), bodies that are too
large and senders that are too slow; and it adds the headers by which browsers load nothing from elsewhere.
Starlette's TrustedHostMiddleware checks the host only, and replies without JSON.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from soundsight.errors import SoundsightError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
PAUSE_SECONDS = 20.0  # longest silence of a sender within a body
BODY_SECONDS = 300.0  # longest time for a whole body

_POLICY = "; ".join([
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:",
    "media-src 'self' blob:", "connect-src 'self'", "worker-src 'self'", "base-uri 'none'",
    "form-action 'none'", "frame-ancestors 'none'",
])  # fmt: skip
HEADERS = {
    "content-security-policy": _POLICY,
    "cache-control": "no-cache",  # ask whether a file has changed; a new version is shown at once
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class TooLarge(SoundsightError):
    """A body is larger than allowed."""


class TooSlow(SoundsightError):
    """A body did not arrive in time."""


class Guard:
    """Wraps an ASGI application."""

    def __init__(self, app: Any, *, host: str, max_bytes: int) -> None:
        self.app = app
        self.local_only = host in LOOPBACK
        self.max_bytes = max_bytes

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for key, value in HEADERS.items():
                    headers.setdefault(key, value)
            await send(message)

        if refusal := self._refusal(scope):
            status, text = refusal
            response = JSONResponse({"error": text}, status, {"connection": "close"})
            await response(scope, receive, send_with_headers)
        else:
            await self.app(scope, self._limited(receive), send_with_headers)

    def _refusal(self, scope: dict[str, Any]) -> tuple[int, str] | None:
        """Status and error message of a request that goes no further; h11 has refused doubled and odd headers."""
        headers = Headers(scope=scope)
        if "\0" in scope["path"]:  # which Starlette below 1.0 passes on to the file system
            return 404, "No file has such a name."
        host = headers.get("host", "").lower()
        if self.local_only and hostname(host) not in LOOPBACK:
            return 403, f"This service answers to 127.0.0.1 and localhost only, not to {host[:100]!r}."
        foreign = set(headers.getlist("origin")) - {f"http://{host}", f"https://{host}"}
        if foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return 403, "Pages of other web sites may not use this service; open its own page instead."
        if int(headers.get("content-length", 0)) > self.max_bytes:
            return 413, str(self._too_large())
        return None

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"The recording is larger than the {self.max_bytes / 1e6:g} MB that this service takes; send a "
            "shorter part of it, or a compressed format such as FLAC or MP3."
        )

    def _limited(self, receive: Any) -> Any:
        """`receive` that counts bytes and has a time limit."""
        count, done = 0, False
        deadline = asyncio.get_running_loop().time() + BODY_SECONDS

        async def counted() -> dict[str, Any]:
            nonlocal count, done
            if done:
                return await receive()  # type: ignore[no-any-return]
            now = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout_at(min(now + PAUSE_SECONDS, deadline)):
                    message: dict[str, Any] = await receive()
            except TimeoutError:
                raise TooSlow("The recording did not arrive in time; send it again.") from None
            count += len(message.get("body", b""))
            done = not message.get("more_body", False)
            if count > self.max_bytes:
                raise self._too_large()
            return message

        return counted


def hostname(host: str) -> str:
    """The name in a Host header, without its port; nothing if it is no such name."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", host)
    return found[1].strip("[]").lower() if found else ""
