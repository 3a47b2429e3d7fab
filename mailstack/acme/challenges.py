"""Answers HTTP-01 (RFC 8555 §8.3) on port 80, for as long as an order takes and about nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from mailstack.service import http


@contextmanager
def answering(sockets: Sequence[socket.socket], answers: Mapping[str, bytes]) -> Iterator[None]:
    """Answer GET of these paths on bound sockets while the block lasts; everything else is 404."""
    servers = [http.Server(bound, _handler(answers)) for bound in sockets]
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


def _handler(answers: Mapping[str, bytes]) -> type[http.Handler]:
    class Handler(http.Handler):
        def do_GET(self) -> None:  # noqa: N802 -- the name is http.server's
            answer = answers.get(self.path)
            self.say(404 if answer is None else 200, "application/octet-stream", answer or b"")

    return Handler
