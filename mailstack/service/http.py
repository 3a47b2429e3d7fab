"""HTTP on sockets that somebody else has bound: what port 80 and the port of numbers have in common."""

from __future__ import annotations

import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

_PATIENCE_SECONDS: Final = 5.0


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


class Server(HTTPServer):
    """Answers on a bound socket, one request at a time."""

    # What its constructor makes is closed at once, but a sandbox may refuse any other kind.
    address_family = socket.AF_UNIX

    def __init__(self, bound: socket.socket, handler: type[Handler]) -> None:
        super().__init__(("", 0), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who went away, or spoke no HTTP, gets no answer."""
