"""A wire tap between a sending program and the server: what was really sent is what must come out."""

from __future__ import annotations

import re
import socket
import threading
from dataclasses import dataclass, field
from types import TracebackType


@dataclass(slots=True)
class _Connection:
    said: bytearray = field(default_factory=bytearray)
    heard: bytearray = field(default_factory=bytearray)
    open: int = 2


class Recorder:
    """Listens on an address, passes everything on to another, and keeps it."""

    def __init__(self, listen: tuple[str, int], server: tuple[str, int]) -> None:
        self._server = server
        self._connections: list[_Connection] = []
        self._changed = threading.Condition()
        self._listening = socket.create_server(listen)
        self.address = listen
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # close alone would not wake the thread
        self._listening.close()

    def accepted(self) -> dict[bytes, bytes]:
        """What DATA carried of every message that got its 250, by the id in that reply.

        Waits for the connections to end.
        """
        with self._changed:
            ended = self._changed.wait_for(lambda: not any(c.open for c in self._connections), timeout=60)
            assert ended, "a connection is still open"
            return {
                number: data
                for each in self._connections
                for number, data in zip(
                    _verdicts(bytes(each.heard)), _contents(bytes(each.said)), strict=True
                )
                if number
            }

    def replies(self) -> list[bytes]:
        """Every reply line of the server so far."""
        with self._changed:
            return [line for each in self._connections for line in bytes(each.heard).splitlines()]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            connection = _Connection()
            with self._changed:
                self._connections.append(connection)
            for source, target, kept in (
                (client, server, connection.said),
                (server, client, connection.heard),
            ):
                threading.Thread(
                    target=self._pass_on, args=(connection, source, target, kept), daemon=True
                ).start()

    def _pass_on(
        self, connection: _Connection, source: socket.socket, target: socket.socket, kept: bytearray
    ) -> None:
        try:
            while octets := source.recv(65536):
                with self._changed:
                    kept += octets
                target.sendall(octets)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            target.close()
        with self._changed:
            connection.open -= 1
            if not connection.open:
                source.close()
                target.close()
            self._changed.notify_all()


def _contents(said: bytes) -> list[bytes]:
    """What each DATA of a client carried, without the final dot line."""
    found = []
    place = 0
    while (end := said.find(b"\r\n", place)) >= 0:
        line, place = said[place:end], end + 2
        if line.upper() == b"DATA":
            # The line end before the first octet of the content counts: ".CRLF" at once is its end.
            end = said.index(b"\r\n.\r\n", place - 2)
            found.append(said[place : end + 2])
            place = end + 5
    return found


def _verdicts(heard: bytes) -> list[bytes]:
    """For each 354, the id in the 250 that came for the content, or nothing where it was refused."""
    verdicts = re.findall(rb"^354 [^\r\n]*\r\n([^\r\n]*)", heard, re.MULTILINE)
    return [
        match[1] if (match := re.match(rb"250 2\.0\.0 (\S+) is delivered", verdict)) else b""
        for verdict in verdicts
    ]
