"""Binds a port and serves, with patience for slow work and none for slow senders."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from soundsight.errors import ConfigError
from soundsight.predict.listener import Listener
from soundsight.web.app import Limits, create_app

HEADER_SECONDS = 15  # from the connection to the end of the first request's headers
CONNECTIONS = 256  # open at once; more are told to come back


class PatientProtocol(H11Protocol):
    """HTTP that hangs up on those who connect and say nothing."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(HEADER_SECONDS, self._hang_up_on_silence)

    def _hang_up_on_silence(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        ConfigError: The address cannot be had.
    """
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


def serve(listener: Listener, listening: socket.socket, *, host: str, limits: Limits, log: bool = False) -> None:
    """Serve until interrupted."""
    config = uvicorn.Config(
        create_app(listener, limits, host=host),
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_level="info" if log else "warning",
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=10,
    )
    uvicorn.Server(config).run(sockets=[listening])
