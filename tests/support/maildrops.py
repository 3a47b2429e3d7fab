"""Messages put into a store by its own deposit, without a server."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sqlalchemy import Connection, update

from mailstack.mail.address import parse_mailbox
from mailstack.mail.spool import Spool
from mailstack.store import accounts, domains, leftovers, messages
from mailstack.store.clock import now
from mailstack.store.engine import Database
from mailstack.store.leftovers import Slice
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.parts import content_id
from mailstack.store.tables import content


def add_accounts(database: Database, *addresses: str) -> None:
    """Make accounts, and their domains where they are not there yet."""
    with database.writing() as connection:
        for address in addresses:
            mailbox = parse_mailbox(address)
            if mailbox.domain not in {each.name for each in domains.list_domains(connection)}:
                domains.add_domain(connection, mailbox.domain)
            accounts.add_account(connection, mailbox, password_hash="$hash$")


def deposit(
    database: Database, content: bytes, *addresses: str, reverse_path: str = "eve@example.net"
) -> int:
    """Store one message for these accounts; return its id."""
    with tempfile.TemporaryDirectory() as folder, Spool(Path(folder)) as spool:
        spool.write(content)
        with database.writing() as connection:
            found = [accounts.find_account(connection, parse_mailbox(address)) for address in addresses]
            prefix = f"Return-Path: <{reverse_path}>\r\n".encode()
            job = Deposit(
                mail_id="test",
                reverse_path=reverse_path,
                spool=spool,
                dotted=b"\n." in content or content.startswith(b"."),
                recipients=tuple(Recipient(each.id, prefix) for each in found),
                at=now(),
            )
            return messages.deposit(connection, [job])[0]


def overwrite(database: Database, message_id: int, octets: bytes, *, part: int = 0) -> None:
    """Put other octets into a part of a message's content, as a broken disk does."""
    with database.writing() as connection:
        mine = content.c.id == content_id(message_id, part)
        connection.execute(update(content).where(mine).values(octets=octets))


def sweep(connection: Connection) -> None:
    """Remove the content that removed entries have left."""
    while any(leftovers.sweep(connection, [Slice(messages=500, octets=1 << 20)])):
        pass
