"""An import brings each message once, and no unique-id ever means two (RFC 1939 §7)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.errors import AlreadyRunning, MessageGone, NoSuchMailbox
from mailstack.mail.address import Mailbox
from mailstack.mail.spool import Spool
from mailstack.store import accounts, browse, discard, imports, integrity, listing, removal, undo
from mailstack.store.accounts import Account
from mailstack.store.engine import Database
from mailstack.store.imports import Batch, Decision, Fate, Imported, Item, Known, Stand, Wanted
from mailstack.store.removal import Expunge
from tests.support import maildrops

JO = "jo@example.org"


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def nothing_here(uid: int) -> bytes:
    raise MessageGone("not here")


def known(*before: Imported, entries: dict[str, int] | None = None, next_uid: int = 1) -> Known:
    return Known(Stand(len(before), 1000), list(before), entries or {}, {}, next_uid)


def decided(wanted: Sequence[Wanted], have: Known) -> list[Decision]:
    return imports.decisions(wanted, have, nothing_here)


# -- decisions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unique_id", "why"),
    [
        ("UID1-5", None),
        ("~" * 70, None),
        ("~" * 71, imports.TOO_LONG),
        ("", imports.NO_UNIQUE_ID),
        ("a b", imports.NO_UNIQUE_ID),
        ("\udcff", imports.NO_UNIQUE_ID),
        ("taken", imports.TAKEN),
        ("1000.5", imports.TAKEN),
        ("1000.7", None),
        ("999.5", None),
        ("4294967295.1", None),
        ("4294967296.1", imports.OURS),
        ("04294967296.1", None),
    ],
)
def test_a_unique_id_is_kept_unless_something_speaks_against_it(unique_id: str, why: str | None) -> None:
    (decision,) = decided([Wanted(b"a", unique_id)], known(entries={"taken": 1}, next_uid=7))
    assert decision == (Fate.NEW, None if why else unique_id, why)


def test_what_was_imported_is_done_though_its_unique_id_was_not_kept() -> None:
    have = known(Imported(b"a", "x", "x"), Imported(b"b", "x", ""), Imported(b"c", "", ""))
    wanted = [Wanted(b"a", "x"), Wanted(b"b", "x"), Wanted(b"c"), Wanted(b"d", "x")]
    assert [each.fate for each in decided(wanted, have)] == [Fate.DONE, Fate.DONE, Fate.DONE, Fate.NEW]


def test_one_content_under_two_unique_ids_is_two_messages() -> None:
    assert [each.fate for each in decided([Wanted(b"a", "x"), Wanted(b"a", "y")], known())] == [Fate.NEW] * 2
    found = decided([Wanted(b"a", "y"), Wanted(b"a", "x")], known(Imported(b"a", "x", "x")))
    assert [each.fate for each in found] == [Fate.NEW, Fate.DONE]


def test_what_had_no_certain_unique_id_is_known_by_its_content() -> None:
    found = decided(
        [Wanted(b"a", "9"), Wanted(b"b", "8")], known(Imported(b"a", "", "7"), Imported(b"b", "", "8"))
    )
    assert found == [Decision(Fate.DONE, why=imports.CHANGED), Decision(Fate.DONE)]
    assert decided([Wanted(b"a", "7", certain=False)], known(Imported(b"a", "5", "5"))) == [
        Decision(Fate.DONE, why=imports.CHANGED)
    ]


contents = st.sampled_from([b"a", b"b", b"c"])
ids = st.sampled_from(["x", "y", "1000.1", "1000.9", "2000.1", "", "a b"])
sources = st.lists(st.builds(Wanted, contents, st.none() | ids, st.booleans()), max_size=8)


@given(sources, sources, st.booleans())
def test_no_unique_id_means_two_messages_and_a_second_run_does_nothing(
    first: list[Wanted], second: list[Wanted], taken_out: bool
) -> None:
    have = known(entries={"native": 1}, next_uid=5)
    before: dict[str, bytes] = {}
    for source in (first, second):
        found = decided(source, have)
        have = have._replace(imported=have.imported + remembered(source, found))
        assert [each.fate for each in decided(source, have)] == [Fate.DONE] * len(source)
        kept = [each.unique_id for each in have.imported if each.unique_id]
        assert len(kept) == len(set(kept))
        assert "1000.1" not in kept
        now = {each.unique_id: each.digest for each in have.imported if each.unique_id}
        assert before | now == now | before
        before |= now
        if taken_out:
            have = have._replace(imported=[], gone=before)


def remembered(source: Sequence[Wanted], found: Sequence[Decision]) -> list[Imported]:
    return [
        Imported(each.digest, (each.unique_id or "") if each.certain else "", decision.unique_id or "")
        for each, decision in zip(source, found, strict=True)
        if decision.fate is not Fate.DONE
    ]


# -- in the store --------------------------------------------------------------------------------


@pytest.fixture
def jo(database: Database) -> Account:
    maildrops.add_accounts(database, JO)
    return account(database)


def account(database: Database) -> Account:
    with database.reading() as connection:
        return accounts.find_account(connection, Mailbox("jo", "example.org"))


def item(content: bytes, unique_id: str | None = None, *, at: int = 1_700_000_000_000_000) -> Item:
    return Item(
        digest(content), unique_id or "", unique_id, Spool.holding(content), False, "eve@example.net", at
    )


def entered(database: Database, jo: Account, *items: Item, here: tuple[Imported, ...] = ()) -> Stand:
    with database.reading() as connection:
        stand = imports.known(connection, jo.id).stand
    with database.writing() as connection:
        return imports.enter(connection, [Batch(jo.id, stand, "test", "a file", items, here)])[0]


def uidl(database: Database, jo: Account) -> list[str]:
    with database.reading() as connection:
        return list(listing.unique_ids(connection, jo.id, 1 << 40))


def test_messages_are_entered_as_they_are_in_their_order_and_with_their_age(
    database: Database, jo: Account
) -> None:
    native = maildrops.deposit(database, b"native\r\n", JO)
    assert native
    stand = entered(
        database, jo, item(b"one\r\n", "UID1-5"), item(b"two\r\n", at=5), item(b"one\r\n", "UID2-5")
    )
    assert stand == (3, jo.uid_validity)
    assert uidl(database, jo) == [f"{jo.uid_validity}.1", "UID1-5", f"{jo.uid_validity}.3", "UID2-5"]
    with database.reading() as connection:
        found = browse.entries(connection, jo.id, after=1)
    assert [each.octets for each in found] == [5, 5, 5]
    assert found[1].delivered_at.timestamp() == 0.000005
    assert b"".join(browse.octets_of(database, jo.id, 2)) == b"one\r\n"
    assert account(database).messages == 4
    assert [step.findings for step in integrity.check(database) if step.findings] == []


def test_what_was_deleted_is_remembered(database: Database, jo: Account) -> None:
    entered(database, jo, item(b"one\r\n", "x"))
    with database.writing() as connection:
        removal.expunge(connection, [Expunge(jo.id, [1])])
    with database.reading() as connection:
        have = imports.known(connection, jo.id)
    wanted = [Wanted(digest(b"one\r\n"), "x"), Wanted(digest(b"two\r\n"), "x")]
    assert decided(wanted, have) == [Decision(Fate.DONE), Decision(Fate.NEW, None, imports.TAKEN)]


def test_a_message_that_is_here_is_found_by_its_unique_id_and_content(
    database: Database, jo: Account
) -> None:
    maildrops.deposit(database, b"native\r\n", JO)
    (native,) = uidl(database, jo)
    whole = digest(b"Return-Path: <eve@example.net>\r\nnative\r\n")
    with database.reading() as connection:
        have = imports.known(connection, jo.id)

    def digest_of(uid: int) -> bytes:
        return digest(b"".join(browse.octets_of(database, jo.id, uid)))

    found = imports.decisions([Wanted(whole, native), Wanted(digest(b"other"), native)], have, digest_of)
    assert found == [Decision(Fate.HERE, native), Decision(Fate.NEW, None, imports.TAKEN)]
    entered(database, jo, here=(Imported(whole, native, native),))
    with database.writing() as connection:
        removal.expunge(connection, [Expunge(jo.id, [1])])
    with database.reading() as connection:
        have = imports.known(connection, jo.id)
    assert decided([Wanted(whole, native)], have) == [Decision(Fate.DONE)]


@pytest.mark.parametrize("ahead", [0, 1, 10**6])
def test_a_foreign_unique_id_of_our_form_is_never_given_to_later_mail(
    database: Database, jo: Account, ahead: int
) -> None:
    foreign = [f"{jo.uid_validity + ahead}.{uid}" for uid in range(1, 6)]
    entered(database, jo, *(item(b"%d\r\n" % n, each) for n, each in enumerate(foreign[3:])))
    for number in range(5):
        maildrops.deposit(database, b"native %d\r\n" % number, JO)
    given_here = uidl(database, jo)[2:]
    assert not {*foreign} & {*given_here}
    assert account(database).uid_validity > jo.uid_validity + ahead
    assert len({*uidl(database, jo)}) == 7
    assert [step.findings for step in integrity.check(database) if step.findings] == []


def test_mail_that_comes_meanwhile_keeps_the_unique_id_that_it_was_given(
    database: Database, jo: Account
) -> None:
    with database.reading() as connection:
        have = imports.known(connection, jo.id)
    wanted = f"{jo.uid_validity}.1"
    (decision,) = decided([Wanted(digest(b"a\r\n"), wanted)], have)
    assert decision.unique_id == wanted
    maildrops.deposit(database, b"native\r\n", JO)
    with database.writing() as connection:
        imports.enter(connection, [Batch(jo.id, have.stand, "test", "a file", (item(b"a\r\n", wanted),))])
    assert uidl(database, jo) == [wanted, f"{jo.uid_validity}.2"]


def test_two_imports_at_once_do_not_double_anything(database: Database, jo: Account) -> None:
    with database.reading() as connection:
        stand = imports.known(connection, jo.id).stand
    entered(database, jo, item(b"a\r\n"))
    with pytest.raises(AlreadyRunning, match="run this again"), database.writing() as connection:
        imports.enter(connection, [Batch(jo.id, stand, "test", "a file", (item(b"a\r\n"),))])
    assert len(uidl(database, jo)) == 1


def test_what_is_remembered_goes_with_the_account(database: Database, jo: Account) -> None:
    entered(database, jo, item(b"a\r\n", "x"))
    with database.writing() as connection:
        accounts.remove_account(connection, jo.mailbox)
    with database.reading() as connection, pytest.raises(NoSuchMailbox):
        imports.known(connection, jo.id)
    with pytest.raises(NoSuchMailbox), database.writing() as connection:
        imports.enter(connection, [Batch(jo.id, Stand(0, 1), "test", "a file", (item(b"b\r\n"),))])
    maildrops.add_accounts(database, JO)
    with database.reading() as connection:
        assert imports.known(connection, account(database).id).imported == []


def taken_out(database: Database, jo: Account) -> None:
    with database.writing() as connection:
        uids = discard.brought(connection, jo.id)
        discard.discard(connection, jo.id, uids, undo_seconds=60)
        discard.forget_imports(connection, jo.id)


def restored(database: Database, jo: Account) -> list[str]:
    with database.writing() as connection:
        return [each.unique_id for each in undo.bring_back(connection, jo.id)]


def test_what_comes_again_under_its_unique_id_is_not_brought_back_beside_itself(
    database: Database, jo: Account
) -> None:
    entered(database, jo, item(b"a\r\n", "x"), item(b"b\r\n", "y"))
    for _ in range(2):  # what was forgotten twice is no other message
        taken_out(database, jo)
        entered(database, jo, item(b"a\r\n", "x"))
        assert restored(database, jo) == ["y"]
    assert sorted(uidl(database, jo)) == ["x", "y"]
    taken_out(database, jo)
    with database.reading() as connection:
        stand = imports.known(connection, jo.id).stand
    assert restored(database, jo) == ["y", "x"]  # while an import is about to bring the same
    with pytest.raises(AlreadyRunning, match="run this again"), database.writing() as connection:
        imports.enter(connection, [Batch(jo.id, stand, "test", "a file", (item(b"a\r\n", "x"),))])
    assert [step.findings for step in integrity.check(database) if step.findings] == []


@pytest.mark.parametrize("unique_id", ["5.1", "1.host.1"])
def test_a_unique_id_that_ends_in_its_own_uid_is_not_entered_beside_what_a_restore_brought_back(
    database: Database, jo: Account, unique_id: str
) -> None:
    entered(database, jo, item(b"a\r\n", unique_id))
    taken_out(database, jo)
    with database.reading() as connection:
        stand = imports.known(connection, jo.id).stand
    assert restored(database, jo) == [unique_id]  # as the entry with the uid 1
    with pytest.raises(AlreadyRunning, match="run this again"), database.writing() as connection:
        imports.enter(connection, [Batch(jo.id, stand, "test", "a file", (item(b"a\r\n", unique_id),))])
    assert uidl(database, jo) == [unique_id]


def test_what_was_imported_is_taken_out_and_may_come_again(database: Database, jo: Account) -> None:
    maildrops.deposit(database, b"native\r\n", JO)
    entered(database, jo, item(b"a\r\n", "x"), item(b"b\r\n"))
    wanted = [Wanted(digest(b"a\r\n"), "y"), Wanted(digest(b"b\r\n"), "z")]
    with database.writing() as connection:
        have = imports.known(connection, jo.id)
        assert imports.under_other_ids(wanted, decided(wanted, have), have.imported) == 1
        uids = discard.brought(connection, jo.id)
        assert discard.discard(connection, jo.id, uids, undo_seconds=60) == (2, 6)
        discard.forget_imports(connection, jo.id)
        have = imports.known(connection, jo.id)
    assert decided(wanted, have) == [Decision(Fate.NEW, "y"), Decision(Fate.NEW, "z")]
    assert imports.under_other_ids(wanted, decided(wanted, have), have.imported) == 0
    assert decided([Wanted(digest(b"c"), "x")], have) == [Decision(Fate.NEW, None, imports.TAKEN)]
    assert len(uidl(database, jo)) == 1
    again = [Wanted(digest(b"a\r\n"), "x")] * 2
    assert decided(again, have) == [Decision(Fate.NEW, "x"), Decision(Fate.NEW, None, imports.TAKEN)]
    assert [step.findings for step in integrity.check(database) if step.findings] == []


def test_what_did_not_keep_its_unique_id_is_found_by_its_content_after_a_restore(
    database: Database, jo: Account
) -> None:
    other = item(b"b\r\n", "x")._replace(unique_id=None)
    entered(database, jo, item(b"a\r\n", "x"), other)
    taken_out(database, jo)
    assert len(restored(database, jo)) == 2
    with database.reading() as connection:
        have = imports.known(connection, jo.id)

    def digest_of(uid: int) -> bytes:
        return digest(b"".join(browse.octets_of(database, jo.id, uid)))

    wanted = [Wanted(digest(content), "x") for content in (b"a\r\n", b"b\r\n", b"b\r\n")]
    assert imports.decisions(wanted, have, digest_of) == [
        Decision(Fate.HERE, "x"),
        Decision(Fate.HERE, None, imports.TAKEN),
        Decision(Fate.NEW, None, imports.TAKEN),
    ]
