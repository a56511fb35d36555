"""Who may ask, and for how long: an ASGI layer around the routes.

It refuses requests from pages of other origins (so that no web site can use the service of somebody who
visits it), names other than this machine's while bound to loopback (DNS rebinding), bodies that are too
large and senders that are too slow; and it adds the headers by which browsers load nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

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
        refusal = self._refusal(scope["headers"])

        async def send_more(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        if refusal:
            status, text = refusal
            await _answer(send_more, status, text)
            return
        await self.app(scope, self._limited(receive), send_more)

    def _refusal(self, sent: list[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        """Status and sentence for a request that goes no further."""
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in sent}
        names = [key.lower() for key, _ in sent]
        if any(names.count(name) > 1 for name in (b"host", b"origin", b"content-length")):
            return 400, "The request says twice where it goes, comes from or how long it is; say it once."
        host = headers.get("host", "")
        if self.local_only and hostname(host) not in LOOPBACK:
            return 403, f"This service answers to 127.0.0.1 and localhost only, not to {host[:100]!r}."
        origin = headers.get("origin")
        foreign = origin is not None and _origin_host(origin) != host.lower()
        if foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return 403, "Pages of other web sites may not use this service; open its own page instead."
        length = headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,18}", length) or int(length) > self.max_bytes:
            return 413, str(self._too_large())
        return None

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"The recording is larger than the {self.max_bytes / 1e6:g} MB that this service takes; send a "
            "shorter stretch of it, or a compressed format such as FLAC or MP3."
        )

    def _limited(self, receive: Any) -> Any:
        """`receive` that counts bytes and loses patience."""
        count, done = 0, False
        deadline = asyncio.get_running_loop().time() + BODY_SECONDS

        async def counted() -> dict[str, Any]:
            nonlocal count, done
            if done:
                return await receive()  # type: ignore[no-any-return]
            left = min(PAUSE_SECONDS, deadline - asyncio.get_running_loop().time())
            try:
                message: dict[str, Any] = await asyncio.wait_for(receive(), max(0.0, left))
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


def _origin_host(origin: str) -> str:
    """Name and port of an Origin header; "null" if it is none."""
    found = re.fullmatch(r"https?://([A-Za-z0-9._:\[\]-]+)", origin)
    return found[1].lower() if found else "null"


async def _answer(send: Any, status: int, text: str) -> None:
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
