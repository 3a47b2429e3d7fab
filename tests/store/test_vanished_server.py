"""A PostgreSQL server without power or network says nothing more, not even that a connection has ended."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from sqlalchemy import make_url

from mailstack.store.engine import Database


@contextmanager
def by_tcp(url: str) -> Iterator[str]:
    """The same database, which is on a unix socket, by a port of this machine; for one connection."""
    direct = make_url(url)
    ends: list[socket.socket] = []

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while octets := source.recv(65536):
                sink.sendall(octets)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def relay() -> None:
        client, _ = listener.accept()
        server = socket.socket(socket.AF_UNIX)
        ends.extend((client, server))
        server.connect(f"{direct.query['host']}/.s.PGSQL.5432")
        back = threading.Thread(target=carry, args=(server, client))
        back.start()
        carry(client, server)
        back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        thread = threading.Thread(target=relay)
        thread.start()
        try:
            yield f"postgresql://mailstack@127.0.0.1:{listener.getsockname()[1]}/{direct.database}"
        finally:
            thread.join()
            for each in ends:
                each.close()


@pytest.mark.parametrize(("said", "milliseconds"), [("", 20_000), ("?tcp_user_timeout=7000", 7000)])
def test_a_server_that_does_not_answer_is_given_up_soon_or_when_the_url_says(
    postgresql_url: str, said: str, milliseconds: int
) -> None:
    with by_tcp(postgresql_url) as url:
        database = Database(url + said)
        try:
            with database.reading() as connection:
                assert connection.connection.driver_connection is not None
                duplicate = os.dup(connection.connection.driver_connection.fileno())
                with socket.socket(fileno=duplicate) as each:
                    assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds
                    assert each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                    assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 20
        finally:
            database.dispose()
