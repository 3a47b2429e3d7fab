"""The words of `mailstack trace`: each event as a sentence, with the smaller print below it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mailstack.cli import show
from mailstack.mail.address import is_helo_name
from mailstack.store import clock, runs
from mailstack.store.events import Kind
from mailstack.store.story import Event, Story, Where
from mailstack.store.tables import REMOVED_BY_ADMIN

_NAMED: Final = 5
_WIDTH: Final = 10


def lines(found: Story) -> Iterator[str]:
    """All events, then where the messages are now."""
    for each in found.events:
        first, *more = _SENTENCES[each.kind](each, found)
        yield show.printable(f"{_time(each.at)}  {each.kind:<{_WIDTH}}{first}")
        for line in more:
            yield show.printable(f"{'':<{21 + _WIDTH}}{line}")
    for where in found.now:
        yield show.printable(f"{'now':<21}{'':<{_WIDTH}}{_whereabouts(where, found)}")


def _accepted(each: Event, found: Story) -> list[str]:
    told = each.told
    return [
        f"{each.name}: {_from_to(each)}, {show.octets(told['octets'])}",
        _came(each),
        *([f"Message-ID {told['message_id']}"] if "message_id" in told else []),
    ]


def _refused(each: Event, found: Story) -> list[str]:
    told = each.told
    if "outcome" in told:
        return [f"{each.name}: {_from_to(each)}: {told['outcome']}", _came(each)]
    sender = f"<{told['reverse_path']}>"
    said = [f"{sender} to {path}: {why}" if path else f"{sender}: {why}" for path, why in told["refused"]]
    more = told["number"] - len(told["refused"])
    return [*said, *([f"and {more} more"] if more else []), _came(each)]


def _session(each: Event, found: Story) -> list[str]:
    told = each.told
    done = []
    if text := told.get("retrieved"):
        size = show.octets(told["retrieved_octets"])
        verb = "downloaded" if told["ended"] == "quit" else "was sent"
        done.append(f"{verb} {_messages(text)} ({size}){_among(text, each, found)}")
    if text := told.get("deleted"):
        done.append(f"deleted {_messages(text)}{_among(text, each, found)}")
    how = f"under {told['tls']}" if told.get("tls") else "without TLS"
    place, began = told["address"] or "this machine", _time(told["began_at"])
    return [
        f"{_account(each, found)} {', '.join(done)}",
        f"from {place} {how}, session {each.name}, since {began}, ended: {told['ended']}",
    ]


def _removed(each: Event, found: Story) -> list[str]:
    told = each.told
    if "uids" not in told:
        return [f"the account {_account(each, found)} was removed with all its mail"]
    text = told["uids"]
    what = f"{_messages(text)} of {_account(each, found)}"
    said = f"housekeeping removed {what}, kept no longer"
    if told.get("why") == REMOVED_BY_ADMIN:
        said = f"mailstack maildrop remove took {what}"
    until = told.get("undo_until", 0)
    more = [f"until {_time(until)} mailstack maildrop restore brings them back"] if until > each.at else []
    return [f"{said}{_among(text, each, found)}", *more]


def _forgotten(each: Event, found: Story) -> list[str]:
    text = each.told["uids"]
    said = f"{_messages(text)} of {_account(each, found)} can no longer be brought back"
    return [said + _among(text, each, found)]


def _restored(each: Event, found: Story) -> list[str]:
    text = each.told["uids"]
    how = "from a backup" if each.told["how"] == "backup" else "after their removal"
    return [f"{_messages(text)} of {_account(each, found)} brought back {how}{_among(text, each, found)}"]


def _imported(each: Event, found: Story) -> list[str]:
    text = each.told["uids"]
    said = f"{_messages(text)} of {_account(each, found)} imported from {each.told['source']}"
    return [said + _among(text, each, found)]


_SENTENCES: Final[dict[Kind, Callable[[Event, Story], list[str]]]] = {
    Kind.ACCEPTED: _accepted,
    Kind.REFUSED: _refused,
    Kind.SESSION: _session,
    Kind.REMOVED: _removed,
    Kind.FORGOTTEN: _forgotten,
    Kind.RESTORED: _restored,
    Kind.IMPORTED: _imported,
}


def _whereabouts(where: Where, found: Story) -> str:
    name = found.names.get(where.account_id, "an account that was removed")
    if where.state == "gone":
        return f"{where.mail} is no longer in the maildrop of {name}"
    if where.state == "removed":
        back = f"it can be brought back as {where.unique_id}"
        return f"{where.mail} was removed from the maildrop of {name}; {back}"
    read = f"downloaded {_time(where.first_read_at)}" if where.first_read_at else "not known to be downloaded"
    return f"{where.mail} is in the maildrop of {name} as {where.unique_id}, {read}"


def _from_to(each: Event) -> str:
    paths = each.told["forward_paths"]
    number = each.told.get("number", len(paths))
    more = f" and {number - _NAMED} more" if number > _NAMED else ""
    return f"<{each.told['reverse_path']}> to {', '.join(paths[:_NAMED])}{more}"


def _came(each: Event) -> str:
    told = each.told
    if told["protocol"] == "local":
        return "by mailstack deliver, on this machine"
    place = told["address"] or "this machine"
    tls = f", {told['tls']}" if told.get("tls") else ""
    began = f", connected {_time(told['connected_at'])}" if "connected_at" in told else ""
    helo = told["helo"] if is_helo_name(told["helo"]) else repr(told["helo"])  # it may be any text
    return f"from {place} ({helo}) by {told['protocol']}{tls}, session {told.get('session')}{began}"


def _account(each: Event, found: Story) -> str:
    return (
        found.names.get(each.told["account_id"]) or each.told.get("account") or "an account that was removed"
    )


def _messages(text: str) -> str:
    return show.counted(runs.count(text), "message")


def _among(text: str, each: Event, found: Story) -> str:
    """Which of the messages that the story is about are among these."""
    number = each.told["account_id"]
    mails = [where.mail for where in found.now if where.account_id == number and runs.among(where.uid, text)]
    if not mails:
        return ""
    more = f" and {len(mails) - _NAMED} more" if len(mails) > _NAMED else ""
    return f": {', '.join(mails[:_NAMED])}{more}"


def _time(at: int) -> str:
    return clock.moment(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
