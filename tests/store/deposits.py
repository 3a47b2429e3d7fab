"""Messages for three maildrops, put in and taken out without a writer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from mailstack.mail.spool import Spool
from mailstack.store import removal
from mailstack.store.messages import Deposit, Recipient

NAMES: Final = ("anna", "ben", "cleo")


@contextmanager
def spooled(*contents: bytes) -> Iterator[list[Spool]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        spools = [stack.enter_context(Spool(Path(folder))) for _ in contents]
        for spool, octets in zip(spools, contents, strict=True):
            spool.write(octets)
        yield spools


def a_deposit(spool: Spool, *account_ids: int, prefix: bytes = b"Return-Path: <>\r\n") -> Deposit:
    recipients = tuple(Recipient(account_id, prefix) for account_id in account_ids)
    return Deposit("test-1", "", spool, False, recipients, 1_000_000)


def expunged(connection, jobs) -> list[int]:
    """How many messages each job has removed."""
    return [each.messages for each in removal.expunge(connection, jobs)]
