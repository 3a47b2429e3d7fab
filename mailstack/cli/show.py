"""What commands print: tables for people, lines for pipes, JSON for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from mailstack.values import rounded_size

Row = Sequence[str]


def as_json(value: Any) -> None:
    """Print a value as JSON; times as ISO 8601, addresses and paths as text.

    JSON escapes the control characters of ASCII alone (RFC 8259 §7); to a terminal U+009B is `ESC [`.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
    print("\n".join(printable(line, _in_json) for line in text.split("\n")))


def table(columns: Sequence[str], rows: Iterable[Row], *, empty: str, numbers: Iterable[str] = ()) -> None:
    """Print rows under their headings, or say in a sentence that there are none."""
    given = [list(map(printable, row)) for row in rows]
    right = {columns.index(name) for name in numbers}
    if not given:
        print(empty, file=sys.stderr)
    elif sys.stdout.isatty():
        _rich_table(columns, given, right)
    else:
        _plain_table(columns, given, right)


def facts(pairs: Mapping[str, str]) -> None:
    """Print what is known of one thing, a line a fact."""
    width = max(map(len, pairs))
    for name, value in pairs.items():
        print(f"{name:<{width}}  {printable(value)}".rstrip())


def note(text: str) -> None:
    """Tell something that is not the answer: on standard error, out of the way of pipes."""
    print(text, file=sys.stderr)


def _in_python(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _in_json(character: str) -> str:
    return json.dumps(character)[1:-1]


def printable(text: str, escaped: Callable[[str], str] = _in_python) -> str:
    """A line in which nothing that a stranger sent moves the cursor, or does anything else to a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else escaped(c) for c in text)


octets: Final = rounded_size


def limit(count: int | None) -> str:
    """A quota for people."""
    return "none" if count is None else octets(count)


def moment(at: datetime | None) -> str:
    """A time for people, in their own zone."""
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M")


def age(at: datetime | None) -> str:
    """How long ago something was, and when; the larger unit is enough."""
    if at is None:
        return "never"
    minutes = max(0, int((datetime.now(UTC) - at).total_seconds())) // 60
    for size, name in ((1440, "day"), (60, "hour")):
        if minutes >= 2 * size:
            return f"{counted(minutes // size, name)} ago, {moment(at)}"
    return f"{counted(minutes, 'minute')} ago, {moment(at)}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 account`, `2 accounts`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _rich_table(columns: Sequence[str], rows: list[list[str]], right: set[int]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        drawn.add_column(name, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        # Text, and no string: "[admin]" in an address is no markup.
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def _plain_table(columns: Sequence[str], rows: list[list[str]], right: set[int]) -> None:
    whole = [list(columns), *rows]
    widths = [max(len(row[number]) for row in whole) for number in range(len(columns))]
    for row in whole:
        cells = (
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())
