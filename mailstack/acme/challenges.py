"""Answers HTTP-01 (RFC 8555 §8.3) on port 80, for as long as an order takes and about nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

_PATIENCE_SECONDS: Final = 5.0


@contextmanager
def answering(sockets: Sequence[socket.socket], answers: Mapping[str, bytes]) -> Iterator[None]:
    """Answer GET of these paths on bound sockets while the block lasts; everything else is 404."""
    servers = [_Server(bound, _handler(answers)) for bound in sockets]
    threads = [threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server in servers:
            server.shutdown()
        for thread in threads:
            thread.join()


def _handler(answers: Mapping[str, bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_SECONDS
        server_version, sys_version = "mailstack", ""

        def do_GET(self) -> None:
            answer = answers.get(self.path)
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(answer or b"")))
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, *_: Any) -> None:
            """Scanners come by port 80 all day."""

    return Handler


class _Server(HTTPServer):
    # What its constructor makes is closed at once, but a sandbox may refuse any other kind.
    address_family = socket.AF_UNIX

    def __init__(self, bound: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("", 0), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who went away, or spoke no HTTP, gets no answer."""
