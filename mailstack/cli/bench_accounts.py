"""The accounts of `mailstack bench`: gone at its end, or, if it was killed, when the next begins."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from mailstack.auth import passwords
from mailstack.cli import account_remove, show
from mailstack.cli.bench_load import Login
from mailstack.cli.exits import Usage
from mailstack.errors import AlreadyRunning, MaildropInUse, NotFound
from mailstack.mail.address import Mailbox
from mailstack.settings import Settings
from mailstack.store import accounts, domains
from mailstack.store.engine import Database

FILE: Final = "bench.json"
"""In state_dir: the accounts, named before they are made; a name alone would not tell whose one is."""

_BUSY: Final = "another mailstack bench is running; try again when it has ended"
_RELEASE_SECONDS: Final = 10.0


@contextmanager
def own_accounts(database: Database, settings: Settings, count: int) -> Iterator[list[Login]]:
    """Accounts that are gone, with their mail, however the block ends.

    Raises AlreadyRunning while another `mailstack bench` has some, Usage where there is no domain.
    """
    file = os.open(settings.state_dir / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(_BUSY) from error
        if not os.fstat(file).st_nlink:
            raise AlreadyRunning(_BUSY)  # it ended between our looks, and took its file along
        if left := _named(file):
            show.note(f"removing {len(left)} accounts of a mailstack bench that was killed")
            _remove(database, settings, left)
        mailboxes = _new_names(database, count)
        _name(file, mailboxes)
        try:
            yield _made(database, settings, mailboxes)
        finally:
            _remove(database, settings, mailboxes)
            os.unlink(settings.state_dir / FILE)
    finally:
        os.close(file)


def _named(file: int) -> list[Mailbox]:
    told = os.pread(file, 1 << 20, 0)
    return [Mailbox(local_part, domain) for local_part, domain in json.loads(told)] if told else []


def _name(file: int, mailboxes: Iterable[Mailbox]) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps([[each.local_part, each.domain] for each in mailboxes]).encode(), 0)
    os.fsync(file)


def _new_names(database: Database, count: int) -> list[Mailbox]:
    with database.reading() as connection:
        ours = [each for each in domains.list_domains(connection) if each.renamed_to is None]
    if not ours:
        raise Usage("there is no domain yet; mailstack domain add makes one")
    mark = secrets.token_hex(4)
    return [Mailbox(f"bench-{mark}-{number}", ours[0].name) for number in range(count)]


def _made(database: Database, settings: Settings, mailboxes: Iterable[Mailbox]) -> list[Login]:
    secret = secrets.token_urlsafe(16)
    kept = passwords.stored(secret, iterations=settings.auth.scram_iterations)
    new = [accounts.NewAccount(each, kept.password_hash, None, kept.scram_keys) for each in mailboxes]
    with database.writing() as connection:
        accounts.add_accounts(connection, new)
    return [Login(str(each.mailbox), secret) for each in new]


def _remove(database: Database, settings: Settings, mailboxes: Iterable[Mailbox]) -> None:
    until = time.monotonic() + _RELEASE_SECONDS
    for mailbox in mailboxes:
        try:
            with database.reading() as connection:
                found = accounts.find_account(connection, mailbox)
        except NotFound:
            continue  # it was killed before it had made them, or while it removed them
        while True:
            try:
                account_remove.remove(database, settings, found)
                break
            except MaildropInUse:  # a session of ours that was cut off, and the server has yet to see it
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
