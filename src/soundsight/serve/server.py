"""Binds a port and serves, with patience for slow work and none for slow senders."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from soundsight.errors import ConfigError
from soundsight.serve.guard import LOOPBACK

HEADER_SECONDS = 15  # from the connection, or the last prediction, to the end of the next request's headers
CONNECTIONS = 256  # open at once; more are told to come back


class PatientProtocol(H11Protocol):
    """HTTP that hangs up on those who connect and say nothing, or never end the headers of any request."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(HEADER_SECONDS, self._hang_up_unless_after, self.cycle)

    def on_response_complete(self) -> None:
        before = self.cycle
        super().on_response_complete()
        self.loop.call_later(HEADER_SECONDS, self._hang_up_unless_after, before)

    def shutdown(self) -> None:
        """At the end of the server: whoever still sends is hung up on, and soon whoever does not read the reply."""
        super().shutdown()
        self.loop.call_later(0 if self.conn.their_state is h11.SEND_BODY else 5, self.transport.abort)

    def _hang_up_unless_after(self, before: Any) -> None:
        """Close the connection if no request followed `before`."""
        if self.cycle is before and not self.transport.is_closing():
            self.transport.close()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{host} port {port} cannot be used ({reason}); choose another with --host and --port."
        ) from error
    return listening


class _Server(uvicorn.Server):
    """Says when it accepts connections, and ends jobs before it waits for connections to close."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready, self._ending = ready, ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending()
        await super().shutdown(sockets)


def without_query(record: logging.LogRecord) -> bool:
    """Cut what follows `?` off the path of a logged request: names of recordings, and whatever else a client adds."""
    if isinstance(record.args, tuple) and len(record.args) >= 3:
        client, method, path, *rest = record.args
        record.args = (client, method, str(path).partition("?")[0], *rest)
    return True


def make_server(app: FastAPI, *, log: bool = False, ready: Callable[[], None] = lambda: None) -> uvicorn.Server:
    """A server that is not running yet; `ready` is called when it accepts connections."""
    jobs = getattr(app.state, "jobs", None)
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_level="info" if log else "warning",
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=10,
    )
    logging.getLogger("uvicorn.access").addFilter(without_query)
    return _Server(config, ready, jobs.end if jobs else lambda: None)


def serve(app: FastAPI, bound: socket.socket, *, host: str, message: str, log: bool = False) -> None:
    """Serve on a bound socket until Ctrl-C; says the address when it accepts connections.

    Args:
        app: The application.
        bound: See `bind`.
        host: As the user gave it.
        message: What to say before the address.
        log: Print each request.
    """
    port, shown = bound.getsockname()[1], f"[{host}]" if ":" in host else host

    def ready() -> None:
        print(f"{message} Open http://{shown}:{port}", flush=True)
        if host not in LOOPBACK:
            logging.getLogger(__name__).info(
                "soundsight: Everybody who can reach this machine can use the page; it has no passwords and no "
                "encryption, so put a proxy with both in front of it."
            )

    make_server(app, log=log, ready=ready).run(sockets=[bound])
