"""`mailstack top`: what the service does at this moment, in the terminal, until one has seen enough."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mailstack.cli import show
from mailstack.cli.control import ask_all
from mailstack.cli.options import Json, admin
from mailstack.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

EXAMPLE = "Example: mailstack top --every 2"

_RATES: Final = {
    "messages_accepted": "messages in",
    "messages_refused": "messages refused",
    "recipients_refused": "recipients refused",
    "smtp_connections": "SMTP connections",
    "pop3_sessions": "POP3 sessions",
    "logins_refused": "logins refused",
    "retrieved": "messages out",
    "deleted": "messages deleted",
}
"""What is shown as so many a second, and in all."""

_QUIT: Final = frozenset(b"qQ\x03\x04\x1b")


@dataclass(frozen=True, slots=True)
class Picture:
    """All processes at one moment."""

    at: float
    processes: tuple[Mapping[str, Any], ...]
    sessions: tuple[Mapping[str, Any], ...]

    def counted(self, name: str) -> int:
        """How often it has happened, in all processes that are there."""
        return sum(
            number
            for each in self.processes
            for key, number in each["counts"].items()
            if key.partition(":")[0] == name
        )

    def now(self, name: str) -> int:
        """How much of it there is."""
        return int(sum(each["now"].get(name, 0) for each in self.processes))


def top(
    context: typer.Context,
    every: Annotated[float, typer.Option(metavar="SECONDS", min=0.2, help="How often to look.")] = 1.0,
    json: Json = False,
) -> None:
    """Show connections, sessions, rates and what waits for the disk; q ends it.

    With --json, or where the output is no terminal, it looks twice, a moment apart, and ends.
    """
    settings = admin(context).settings
    first = _taken(settings)
    if json or sys.stdin is None or not (sys.stdout.isatty() and sys.stdin.isatty()):
        time.sleep(every)
        second = _taken(settings)
        if json:
            show.as_json(_fields(first, second))
        else:
            for line in _lines(first, second):
                print(line)
        return
    _live(settings, first, every)


def _taken(settings: Settings) -> Picture:
    processes = tuple(ask_all(settings, "numbers"))
    sessions = tuple(each for told in ask_all(settings, "sessions") for each in told["sessions"])
    return Picture(time.monotonic(), processes, sessions)


def _rate(name: str, before: Picture, after: Picture) -> float:
    # A process that has ended took its numbers along.
    return max(0, after.counted(name) - before.counted(name)) / max(after.at - before.at, 0.001)


def _fields(before: Picture, after: Picture) -> dict[str, Any]:
    names = (
        "smtp_connections",
        "pop3_sessions",
        "octets_in_flight",
        "writer_jobs",
        "writer_octets",
        "leftover_octets",
    )
    return {
        "now": {name: after.now(name) for name in names},
        "per_second": {name: round(_rate(name, before, after), 3) for name in _RATES},
        "total": {name: after.counted(name) for name in _RATES},
        "processes": after.processes,
        "sessions": after.sessions,
    }


def _lines(before: Picture, after: Picture) -> Iterator[str]:
    """All of it as text, the most important first."""
    yield (
        f"{show.counted(after.now('smtp_connections'), 'SMTP connection')},"
        f" {show.counted(after.now('pop3_sessions'), 'POP3 session')},"
        f" {show.octets(after.now('octets_in_flight'))} on the way in,"
        f" {show.counted(after.now('writer_jobs'), 'job')} ({show.octets(after.now('writer_octets'))})"
        f" waiting for the disk, {show.octets(after.now('leftover_octets'))} deleted and to be removed"
    )
    yield ""
    yield f"{'':<20}{'a second':>10}{'in all':>12}"
    for name, title in _RATES.items():
        yield f"{title:<20}{_rate(name, before, after):>10.1f}{after.counted(name):>12}"
    yield ""
    yield f"{'process':>9}  {'memory':>9}{'CPU':>7}{'files':>7}  serves"
    for each in after.processes:
        spent = _spent(each, before) / max(after.at - before.at, 0.001)
        what = ", ".join(each["sockets"]) or "housekeeping"
        memory, files = show.octets(each["now"]["resident_octets"]), each["now"]["open_files"]
        yield f"{each['pid']:>9}  {memory:>9}{spent:>7.0%}{files:>7}  {what}"
    if after.sessions:
        yield ""
        yield f"{'POP3 session':<14}{'since':>7}{'idle':>7}{'sent':>7}  account, from"
        now = time.time()
        for one in sorted(after.sessions, key=lambda one: float(one["idle_seconds"])):
            since = f"{now - one['since']:.0f}s"
            who = one["account"] or "(not logged in)"
            idle = f"{one['idle_seconds']:.0f}s"
            yield f"{one['session']:<14}{since:>7}{idle:>7}{one['retrieved']:>7}  {who}, {one['address']}"


def _spent(process: Mapping[str, Any], before: Picture) -> float:
    """The CPU time since the last look, of a process that was there then."""
    for each in before.processes:
        if each["pid"] == process["pid"]:
            return max(0.0, float(process["now"]["cpu_seconds"] - each["now"]["cpu_seconds"]))
    return 0.0


def _live(settings: Settings, first: Picture, every: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    before = after = first
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        live.update(_drawn(before, after, console.height), refresh=True)
        while not pressed(every):
            before, after = after, _taken(settings)
            live.update(_drawn(before, after, console.height), refresh=True)


def _drawn(before: Picture, after: Picture, height: int) -> RenderableType:
    from rich.text import Text

    lines = list(_lines(before, after))
    if len(lines) > height - 2:
        lines = [*lines[: height - 3], "..."]
    text = Text("\n".join(lines), no_wrap=True, overflow="crop")
    text.append("\n\nq ends this", "dim")
    return text


@contextmanager
def _keys() -> Iterator[Any]:
    """Whether, within some seconds, somebody has asked for the end: by a key or by a signal."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    asked = []
    number = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))

    def pressed(seconds: float) -> bool:
        readable, _, _ = select.select([terminal], [], [], seconds)
        if readable:
            octets = os.read(terminal, 64)
            return not octets or not _QUIT.isdisjoint(octets) or bool(asked)
        return bool(asked)

    try:
        tty.setcbreak(terminal)
        yield pressed
    except KeyboardInterrupt:
        pass  # that is how one ends it, too
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, number)
