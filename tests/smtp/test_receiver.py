"""What the receiver has of aiosmtpd, by name: whoever updates it has to look at these."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect

from aiosmtpd.smtp import SMTP

from mailstack.smtp.receiver import Receiver
from tests.smtp.doubles import Connection

INHERITED = {"__del__"}
"""All that runs of aiosmtpd's: it bears with what our `__init__` leaves out, asyncio's own would not."""

CALLBACKS = {
    name
    for kind in (asyncio.BaseProtocol, asyncio.Protocol)
    for name in vars(kind)
    if not name.startswith("_")
}


def test_the_version_is_the_one_that_was_read():
    assert importlib.metadata.version("aiosmtpd") == "1.4.6"


def test_every_callback_of_the_loop_is_our_own():
    assert {
        "connection_made",
        "connection_lost",
        "data_received",
        "eof_received",
        "pause_writing",
        "resume_writing",
    } == CALLBACKS
    assert set(vars(Receiver)) >= CALLBACKS


def test_nothing_else_is_overridden_by_chance():
    ours = {name for name, value in vars(Receiver).items() if inspect.isfunction(value)}
    assert ours & set(dir(SMTP)) == CALLBACKS | {"__init__"}


async def test_nothing_else_is_inherited(monkeypatch):
    looked_up: set[str] = set()

    class Watched(Receiver):
        def __getattribute__(self, name: str):
            looked_up.add(name)
            return super().__getattribute__(name)

    monkeypatch.setattr("tests.smtp.doubles.Receiver", Watched)
    connection = Connection()
    await connection.feed(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<slow@x>\r\nDATA\r\nx\r\n.\r\n")
    await connection.feed(b"FOO\r\nBDAT 3\r\nx")
    connection.receiver.pause_writing()
    connection.receiver.resume_writing()
    connection.receiver.time_out()
    connection.receiver.eof_received()
    connection.receiver.connection_lost(None)
    used = set(looked_up)
    own = {*vars(Receiver), *vars(connection.receiver)}
    assert {name for name in used - own if hasattr(SMTP, name)} == set()
    assert set(vars(SMTP)) >= INHERITED
