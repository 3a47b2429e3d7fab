"""What an import tells: people in sentences, scripts in JSON, and the exit code says what was wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from mailstack.cli import show
from mailstack.cli.importing.measuring import Measured
from mailstack.cli.importing.source import Source, shown
from mailstack.errors import BadData
from mailstack.store.accounts import Account
from mailstack.store.clock import moment
from mailstack.store.imports import Decision, Fate

Messages = list[tuple[Measured, Decision]]

_SHOWN: Final = 20
_DOES: Final = {Fate.NEW: "to import", Fate.HERE: "is there", Fate.DONE: "was imported"}


class Result(NamedTuple):
    """How an import ended."""

    account: Account
    path: Path
    source: Source
    messages: Messages
    entered: int
    dry_run: bool


def tell(result: Result, *, json: bool) -> None:
    """Say it; raises BadData where something was wrong with the source, or a unique-id was not kept."""
    counts = Counter(decision.fate for _, decision in result.messages)
    lost = [
        f"{each.found.place}: the unique-id {shown(each.found.unique_id or '')} was not kept: {decision.why}"
        for each, decision in result.messages
        if decision.why is not None
    ]
    if json:
        show.as_json(_facts(result, counts, lost))
    else:
        _say(result, counts)
    said = [_some(result.source.problems)] if result.source.problems else []
    if lost:
        told = f"clients download again: {show.counted(len(lost), 'message')} whose unique-id was not kept"
        said += [told, _some(lost)]
    if said:
        raise BadData("\n".join(said))


def _facts(result: Result, counts: Counter[Fate], lost: list[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "address": str(result.account.mailbox),
        "source": result.path,
        "found": len(result.messages),
        "imported": result.entered,
        "there": counts[Fate.HERE] + counts[Fate.DONE],
        "not_kept": lost,
        "notes": result.source.notes,
        "problems": result.source.problems,
    }
    if result.dry_run:
        facts["messages"] = [
            {
                "place": each.found.place,
                "unique_id": _known_as(each, decision),
                "octets": each.octets,
                "arrived_at": moment(each.at),
                "does": _DOES[decision.fate],
            }
            for each, decision in result.messages
        ]
    return facts


def _say(result: Result, counts: Counter[Fate]) -> None:
    there = counts[Fate.HERE] + counts[Fate.DONE]
    if result.dry_run:
        show.table(
            ("number", "unique-id", "octets", "arrived", "what", "where"),
            (
                (
                    str(number),
                    _known_as(each, decision) or "a new one",
                    str(each.octets),
                    show.moment(moment(each.at)),
                    _DOES[decision.fate],
                    each.found.place,
                )
                for number, (each, decision) in enumerate(result.messages, 1)
            ),
            empty=f"there are no messages in {result.path}",
            numbers=("number", "octets"),
        )
    number = counts[Fate.NEW] if result.dry_run else result.entered
    done = "would be imported" if result.dry_run else "imported"
    more = f"; {show.counted(there, 'message')} had come before" if there else ""
    sentence = (
        f"{show.counted(number, 'message')} of {result.source.kind} {done} into {result.account.mailbox}"
    )
    show.note(f"{sentence}{more}") if result.dry_run else print(f"{sentence}{more}")
    for note in result.source.notes:
        show.note(f"note: {note}")


def _known_as(each: Measured, decision: Decision) -> str | None:
    """The unique-id that it has or will have here, where that is not a new one."""
    return decision.unique_id if decision.fate is not Fate.DONE or decision.why else each.found.unique_id


def _some(lines: Sequence[str]) -> str:
    more = len(lines) - _SHOWN
    return "\n".join([*lines[:_SHOWN], *([f"and {more} more; --json tells all"] if more > 0 else [])])
