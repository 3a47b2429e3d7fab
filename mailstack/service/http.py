"""HTTP on sockets that somebody else has bound: what port 80 and the port of numbers have in common."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

_PATIENCE_SECONDS: Final = 5.0
"""So long a client may say nothing, or take nothing."""

_REQUEST_SECONDS: Final = 10.0
"""So long all of a request may take, its answer included: Prometheus, too, waits no longer."""

_REQUESTS: Final = 16
"""At once. Where more come, the oldest is given up: who asks in earnest has long been answered then."""


class Handler(BaseHTTPRequestHandler):
    """One request; whoever derives from it says what is answered."""

    timeout = _PATIENCE_SECONDS
    server_version, sys_version = "mailstack", ""

    def say(self, code: int, content_type: str, body: bytes) -> None:
        """The whole answer, or its header alone where that is what was asked for."""
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """A scrape every few seconds is no news, and scanners come by port 80 all day."""


class Server(ThreadingHTTPServer):
    """Answers on a bound socket; each request has a thread, so that who is slow keeps nobody waiting."""

    daemon_threads = True
    # What its constructor makes is closed at once, but a sandbox may refuse any other kind.
    address_family = socket.AF_UNIX

    def __init__(self, bound: socket.socket, handler: type[Handler]) -> None:
        super().__init__(("", 0), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self._began: dict[socket.socket, float] = {}  # of each request, oldest first
        self._ended = threading.Condition()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give it a thread once there are not too many."""
        with self._ended:
            while len(self._began) >= _REQUESTS:
                _give_up(next(iter(self._began)))
                self._ended.wait()
            self._began[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """It is answered, or given up."""
        super().shutdown_request(request)
        with self._ended:
            self._began.pop(request, None)
            self._ended.notify()

    def service_actions(self) -> None:
        """Several times a second: give up what has had its time."""
        self._give_up_before(time.monotonic() - _REQUEST_SECONDS)

    def shutdown(self) -> None:
        """Take no more requests, and give up those that are left."""
        super().shutdown()
        self._give_up_before(time.monotonic())

    def _give_up_before(self, moment: float) -> None:
        with self._ended:
            late = [request for request, began in self._began.items() if began < moment]
        for each in late:
            _give_up(each)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who went away, or spoke no HTTP, gets no answer."""


def _give_up(request: socket.socket) -> None:
    """Its thread reads an end then, or cannot write, and goes."""
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)
