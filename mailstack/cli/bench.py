"""`mailstack bench`: how fast the running server is on this machine, and what bounds it."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Final, NamedTuple

import typer

from mailstack.cli import ask, bench_load, show
from mailstack.cli.bench_accounts import own_accounts
from mailstack.cli.bench_load import Figures, Login
from mailstack.cli.control import ask_all
from mailstack.cli.exits import Usage
from mailstack.cli.options import Json, admin
from mailstack.errors import NotRunning, StoreFull
from mailstack.settings import Settings
from mailstack.store.engine import Database
from mailstack.values import TcpAddress

EXAMPLE = "Example: mailstack bench --seconds 5 --connections 20"

_BIG: Final = 1024 * 1024
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_BUSY: Final = 0.8
"""Of a core: from there on it is what bounds a process whose Python runs on one."""


class Places(NamedTuple):
    """Where the server listens."""

    smtp: TcpAddress
    pop3: TcpAddress


class Row(NamedTuple):
    """One kind of work: what it showed, and how busy the busiest process of the server was, of one core."""

    name: str
    unit: str
    figures: Figures
    busy: float


def bench(
    context: typer.Context,
    *,
    seconds: Annotated[float, typer.Option(min=0.2, max=60, help="How long each part takes.")] = 3,
    connections: Annotated[int, typer.Option(min=1, max=50, help="How many work at once.")] = 10,
    octets: Annotated[int, typer.Option(min=200, max=10_000_000, help="The size of a message.")] = 2048,
    account: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="An account with an empty maildrop, instead of new ones."),
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Its password is the first line of standard input.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="Where the server is; else this machine, as the settings have it.")
    ] = None,
    beyond_loopback: Annotated[
        bool, typer.Option("--beyond-loopback", help="Yes, put load on a host that is not this one.")
    ] = False,
    json: Json = False,
) -> None:
    """Put a small load on the running server, for some seconds, and tell how fast it is.

    It makes accounts of its own and removes them with their mail. The load takes part of the machine:
    the figures are what is left for it, not what the server could do.
    """
    settings = admin(context).settings
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended in whichever way, it clears up
    places = _places(settings, host, beyond_loopback=beyond_loopback)
    with admin(context).database() as database:
        most = _most_messages(database, settings, octets, connections)
        measured = partial(
            _measured, settings, places, octets=octets, seconds=seconds, connections=connections, most=most
        )
        if account is not None:
            secret = ask.own_password(stdin=password_stdin)
            given = [Login(str(ask.mailbox(account, settings)), secret)]
            rows = measured(given, clean=True)
        else:
            with own_accounts(database, settings, connections) as own:
                rows = measured(own, clean=False)
    if json:
        show.as_json({"rows": [_fields(row) for row in rows], "advice": _advice(rows)})
        return
    show.table(
        ("", "a second", "median", "p99", "busy"),
        (_cells(row) for row in rows),
        empty="",
        numbers=("a second", "median", "p99", "busy"),
    )
    for line in _advice(rows):
        print(line)


# -- where and who -------------------------------------------------------------------------------


def _places(settings: Settings, host: str | None, *, beyond_loopback: bool) -> Places:
    if host is None:
        places = _served_places(settings)
    else:
        named = {"smtp": settings.smtp.listen, "pop3": settings.pop3.listen}
        tcp = {name: [each for each in named[name] if isinstance(each, TcpAddress)] for name in named}
        places = Places(*(TcpAddress(host, _first(name, tcp[name]).port) for name in tcp))
    for place in places:
        if not beyond_loopback and not place.is_loopback:
            raise Usage(
                f"{place.host} is not this machine's loopback;"
                " --beyond-loopback says that the load is meant for it"
            )
    return places


def _served_places(settings: Settings) -> Places:
    """Where the processes that run here listen, whatever the settings say; raises NotRunning."""
    found: dict[str, list[TcpAddress]] = {"smtp": [], "pop3": []}
    for process in ask_all(settings, "status"):
        for name, several in found.items():
            several.extend(TcpAddress(*each) for each in process["listening"].get(name, ()))
    return Places(_first("smtp", found["smtp"]), _first("pop3", found["pop3"]))


def _first(what: str, listening: Sequence[TcpAddress]) -> TcpAddress:
    """The one on loopback, if there is one."""
    if not listening:
        raise NotRunning(f"{what} is not served on any port, so there is nothing to measure")
    return next((each for each in listening if each.is_loopback), listening[0]).from_here


def _most_messages(database: Database, settings: Settings, octets: int, connections: int) -> int:
    """How many messages of each kind may be stored: all that the load brings stays below a tenth of the room.

    Raises StoreFull where that would be too few to tell anything.
    """
    if not database.path:
        return bench_load.MOST
    disk = os.statvfs(os.path.dirname(database.path))
    room = disk.f_bavail * disk.f_frsize - settings.store.reserve_octets
    each = 2 * (2 * octets + 4096)  # in the log and in the file, in two rows
    most = max(room, 0) // 10 // each
    if most < 10 * connections or room // 10 < 4 * _BIG:
        raise StoreFull(
            f"the disk has {max(room, 0) // 1_000_000} MB above the reserve, of which this may take a tenth:"
            " too little for such a load"
        )
    return min(most, bench_load.MOST)


# -- measuring -----------------------------------------------------------------------------------


def _measured(
    settings: Settings,
    places: Places,
    logins: Sequence[Login],
    *,
    octets: int,
    seconds: float,
    connections: int,
    most: int,
    clean: bool,
) -> list[Row]:
    first = logins[0]
    if clean and (there := asyncio.run(bench_load.count(places.pop3, first))):
        raise Usage(f"the maildrop of {first.name} holds {there} messages; name an account that has none")
    mark = secrets.token_hex(8)
    to = first.name.encode()
    small, big = bench_load.message(mark, octets), bench_load.message(mark, _BIG)
    if not clean:
        asyncio.run(bench_load.poll(places.pop3, logins, seconds=0, most=len(logins)))  # pays the hashes
    rows = [Row("synced writes", "writes", bench_load.sync_rate(settings.state_dir, seconds / 2), 0.0)]

    def row(name: str, unit: str, work: Any) -> None:
        show.note(f"{name} ...")
        before = _cpu(settings)
        figures = asyncio.run(work)
        used = max((now - before.get(pid, now) for pid, now in _cpu(settings).items()), default=0.0)
        rows.append(Row(name, unit, figures, used / figures.seconds))

    try:
        deliver, poll = bench_load.deliver, bench_load.poll
        row(
            "deliver, 1 connection",
            "messages",
            deliver(places.smtp, to, small, connections=1, seconds=seconds, most=most),
        )
        many = deliver(places.smtp, to, small, connections=connections, seconds=seconds, most=most)
        row(f"deliver, {connections} connections", "messages", many)
        row(f"poll, {len(logins)} at once", "sessions", poll(places.pop3, logins, seconds=seconds))
        asyncio.run(deliver(places.smtp, to, big, connections=1, seconds=0, most=1))
        last = asyncio.run(bench_load.count(places.pop3, first))
        row("fetch 1 MiB", "MB", bench_load.fetch(places.pop3, first, last, seconds=seconds))
    finally:
        if clean:
            asyncio.run(bench_load.remove(places.pop3, first, mark))
    return rows


def _cpu(settings: Settings) -> dict[int, float]:
    """Seconds of CPU that each serving process of this machine has used."""
    found: dict[int, float] = {}
    with suppress(NotRunning):
        for process in ask_all(settings, "status"):
            with suppress(OSError), open(f"/proc/{process['pid']}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
                found[process["pid"]] = (int(fields[11]) + int(fields[12])) / _TICKS
    return found


# -- telling -------------------------------------------------------------------------------------


def _rate(row: Row) -> float:
    return row.figures.octets / row.figures.seconds / 1e6 if row.unit == "MB" else row.figures.rate


def _fields(row: Row) -> Mapping[str, Any]:
    return {
        "name": row.name,
        "unit": row.unit,
        "per_second": round(_rate(row), 2),
        "done": row.figures.done,
        "seconds": round(row.figures.seconds, 3),
        "median_milliseconds": round(row.figures.quantile(0.5), 3),
        "p99_milliseconds": round(row.figures.quantile(0.99), 3),
        "busiest_process_percent_of_a_core": round(100 * row.busy),
    }


def _cells(row: Row) -> list[str]:
    middle, late = row.figures.quantile(0.5), row.figures.quantile(0.99)
    busy = f"{100 * row.busy:.0f} %" if row.busy else ""
    return [row.name, f"{_rate(row):.0f} {row.unit}", f"{middle:.2f} ms", f"{late:.2f} ms", busy]


def _advice(rows: Sequence[Row]) -> list[str]:
    """What bounds each, and what would help, in sentences."""
    syncs, one, many, poll, _ = rows
    said: list[str] = []
    wait = syncs.figures.quantile(0.5)
    share = min(wait / one.figures.quantile(0.5), 1)
    said.append(
        f"A synced write takes {wait:.2f} ms, {100 * share:.0f} % of a message that comes alone"
        + ("; a disk with a cache that survives a power cut would help most." if share > 0.5 else ".")
    )
    if many.busy > _BUSY or poll.busy > _BUSY:
        said.append(
            "The server's process is busy for nearly a whole core: let SMTP and POP3 have a process each"
            " (as the systemd units do), or start it with --workers, where there are cores that idle."
        )
    else:
        said.append(
            "No process of the server is busy for a whole core: it waits for the disk, or for this load."
        )
    return said
