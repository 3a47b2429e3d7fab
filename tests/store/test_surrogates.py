"""Messages with a surrogate (RFC 6858): both are kept, counted, shown and removed together."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from mailstack.delivery import Delivery
from mailstack.mail.address import parse_mailbox
from mailstack.mail.envelope import UNBOUNDED, Envelope
from mailstack.mail.spool import PART_OCTETS
from mailstack.mail.trace import Arrival
from mailstack.store import accounts, domains, listing, messages, removal, undo
from mailstack.store.engine import Database
from mailstack.store.removal import Expunge
from mailstack.store.store import Store
from mailstack.store.tables import REMOVED_BY_CLIENT, account, content, entry, message
from tests.support import maildrops
from tests.support.contents import findings
from tests.support.fetched import whole

BODY = ("größe" * 40_000 + "\r\n").encode()  # of two parts
MAIL = "From: jö@example.net\r\nSubject: Grüße\r\n\r\n".encode() + BODY


async def deliver(database: Database, folder: Path, mail: bytes, *, sender: str, utf8: bool = True) -> None:
    """One message to two accounts, as SMTP hands it over."""
    store = Store(database, state_dir=folder, reserve_octets=0)
    delivery = Delivery(store, hostname="mx.example.org", spool_dir=folder, max_message_octets=1 << 30)
    envelope = Envelope(parse_mailbox(sender), utf8=utf8)
    for number, name in enumerate(("ann@example.org", "bert@bücher.example"), 1):
        envelope.add(parse_mailbox(name), {number: UNBOUNDED})
    intake = delivery.begin(envelope, Arrival("mx", "192.0.2.1", "UTF8SMTP", None), "id1")
    intake.write(mail)
    await delivery.deliver(intake)
    intake.close()
    # Not `store.close`, which would dispose of the database that the test still needs.
    await store._writer.close()


@pytest.fixture
def office(database: Database) -> Database:
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
        for name in ("ann@example.org", "bert@example.org"):
            accounts.add_account(connection, parse_mailbox(name), password_hash="")
    return database


def seen(database: Database, account_id: int, *, surrogates: bool) -> tuple[int, int, bytes]:
    """What STAT and LIST say of the only message, and the message."""
    with database.reading() as connection:
        snapshot = messages.snapshot(connection, account_id)
        assert snapshot.messages == 1
        stat = snapshot.octets + (snapshot.surrogate_octets if surrogates else 0)
        (octets,) = listing.listing(connection, account_id, 1, surrogates=surrogates).octets
        return stat, octets, whole(connection, account_id, 1, surrogates=surrogates)


async def test_sizes_are_right_in_both_views(office: Database, tmp_path: Path) -> None:
    await deliver(office, tmp_path, MAIL, sender="jö@example.net")
    for account_id in (1, 2):
        for surrogates in (False, True):
            stat, octets, whole = seen(office, account_id, surrogates=surrogates)
            assert stat == octets == len(whole)
            header, _, body = whole.partition(b"\r\n\r\n")
            assert body == BODY
            assert header.isascii() == surrogates
    assert (
        b"Return-Path: <invalid@internationalized-address.invalid>\r\n" in seen(office, 2, surrogates=True)[2]
    )
    assert b"Delivered-To: bert@xn--bcher-kva.example\r\n" in seen(office, 2, surrogates=True)[2]
    assert len(BODY) > PART_OCTETS
    assert findings(office) == []


async def test_trace_fields_alone_need_no_second_content(office: Database, tmp_path: Path) -> None:
    await deliver(office, tmp_path, b"Subject: x\r\n\r\nx\r\n", sender="eve@example.net")
    assert seen(office, 1, surrogates=True) == seen(office, 1, surrogates=False)
    assert seen(office, 2, surrogates=True)[2] == seen(office, 2, surrogates=False)[2].replace(
        "bücher".encode(), b"xn--bcher-kva"
    )
    with office.reading() as connection:
        assert connection.execute(select(func.count()).select_from(message)).scalar_one() == 1
        assert messages.snapshot(connection, 1).surrogates == 0
    assert findings(office) == []


@pytest.mark.parametrize("mail", [MAIL.replace("ü".encode(), b"\xfc"), MAIL])
async def test_without_smtputf8_nothing_is_changed(office: Database, tmp_path: Path, mail: bytes) -> None:
    await deliver(office, tmp_path, mail, sender="eve@example.net", utf8=False)
    assert seen(office, 1, surrogates=True) == seen(office, 1, surrogates=False)
    with office.reading() as connection:
        assert messages.snapshot(connection, 1).surrogates == 0


async def test_both_go_with_the_last_entry(office: Database, tmp_path: Path) -> None:
    await deliver(office, tmp_path, MAIL, sender="eve@example.net")
    for account_id, left in ((1, 2), (2, 0)):
        with office.writing() as connection:
            assert removal.expunge(connection, [Expunge(account_id, [1])])[0].messages == 1
        assert findings(office) == []
        with office.writing() as connection:
            maildrops.sweep(connection)
        assert findings(office) == []
        with office.reading() as connection:
            snapshot = messages.snapshot(connection, account_id)
            assert (snapshot.messages, snapshot.octets) == (0, 0)
            assert (snapshot.surrogates, snapshot.surrogate_octets) == (0, 0)
            assert connection.execute(select(func.count()).select_from(message)).scalar_one() == left
    with office.reading() as connection:
        assert connection.execute(select(func.count()).select_from(content)).scalar_one() == 0


async def test_what_was_removed_comes_back_with_its_surrogate(office: Database, tmp_path: Path) -> None:
    await deliver(office, tmp_path, MAIL, sender="eve@example.net")
    before = seen(office, 1, surrogates=True)
    with office.writing() as connection:
        removal.expunge(connection, [Expunge(1, [1], REMOVED_BY_CLIENT)])
    assert findings(office) == []
    with office.writing() as connection:
        undo.bring_back(connection, 1)
    assert seen(office, 1, surrogates=True) == before
    assert findings(office) == []


async def test_what_does_not_add_up_is_found_and_mended(office: Database, tmp_path: Path) -> None:
    await deliver(office, tmp_path, MAIL, sender="eve@example.net")
    with office.writing() as connection:
        connection.execute(update(account).where(account.c.id == 1).values(surrogates=3))
        connection.execute(update(entry).where(entry.c.account_id == 2).values(surrogate_octets=1))
    said = findings(office, repair=True)
    assert any("the counter says 3 surrogates" in each for each in said)
    assert any("account 2, uid 1: the entry says 1 octets for the surrogate" in each for each in said)
    assert findings(office) == []
