"""mailstack beside Postfix and Dovecot, in turns on one machine: `make bench`.

All servers run all the time, and each workload is given to one and then to the other, round after
round, so that a machine that grows slower does so for all; none is asked before the one before it
rests. All sync every commit. None pays a password's hash, but where a row says so: the peer keeps
passwords as they are, and ours remembers logins for some minutes.

Ends with 1 where a request was refused or not answered, else with 0, whatever the figures are.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import load, servers
from bench.limits import limits
from bench.rows import WORKLOADS, Fresh, Workload
from bench.table import Results, failures, table
from bench.workloads import Figures, empty, poll

USERS = 200
PEERS = {"none": (), "sdbox": ("sdbox",), "maildir": ("maildir",), "both": ("sdbox", "maildir")}
Measured = Callable[[str, str, Figures], None]
"""Takes the name of a workload, that of a server, and what a round has found."""


@contextmanager
def _running(folder: Path, storages: Sequence[str], fresh: Fresh) -> Iterator[list[servers.Server]]:
    folder.mkdir(mode=0o755)
    with ExitStack() as stack:
        yield [
            stack.enter_context(servers.mailstack(folder / "ours", fresh.users)),
            *(
                stack.enter_context(servers.peer(folder / each, fresh.users, each, fresh.scheme))
                for each in storages
            ),
        ]


def _round(
    number: int, workload: Workload, running: Sequence[servers.Server], scale: float, measured: Measured
) -> None:
    # Who went first goes second in the next round.
    for server in running if number % 2 else reversed(running):
        began = time.monotonic()
        measured(workload.name, server.name, workload.run(server, scale))
        took = time.monotonic() - began
        print(f"{workload.name}: round {number}: {server.name} {took:.1f} s", file=sys.stderr, flush=True)


def measure(
    wanted: Sequence[Workload], storages: Sequence[str], rounds: int, scale: float, measured: Measured
) -> None:
    """All rounds, with progress on standard error."""
    with tempfile.TemporaryDirectory(prefix="mailstack-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postfix and Dovecot have users of their own
        if shared := [each for each in wanted if each.fresh is None]:
            with _running(folder / "shared", storages, Fresh(USERS)) as running:
                for server in running:
                    empty(server)
                    poll(server, 0.25)  # what a poll costs, which later rows take off
                for workload in shared:
                    for server in running if workload.prepare else ():
                        assert workload.prepare is not None
                        workload.prepare(server, scale)
                    for number in range(1, rounds + 1):
                        _round(number, workload, running, scale, measured)
                    for server in running:
                        empty(server)
        for workload in wanted:
            for number in range(1, rounds + 1):
                if workload.fresh is not None:
                    with _running(folder / f"{time.monotonic()}", storages, workload.fresh) as running:
                        _round(number, workload, running, scale, measured)


def main() -> int:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=0.5, help="multiplies all counts")
    parser.add_argument("--peer", choices=PEERS, default="sdbox", help="how the peer keeps mail")
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORDS", help="workloads whose names have this in them"
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="all figures, as JSON; what is there of other workloads stays",
    )
    parser.add_argument("--table", action="store_true", help="measure nothing, print what is in the results")
    told = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ended in whichever way, it stops its servers
    rows: Results = (
        json.loads(told.results.read_text())["rows"] if told.results and told.results.exists() else {}
    )
    if told.table:
        print(table(rows, WORKLOADS))
        return 0
    load.program()  # before any server is started
    wanted = [each for each in WORKLOADS if not told.only or any(words in each.name for words in told.only)]
    machine = f"{platform.machine()}, {platform.release()}, Python {platform.python_version()}"
    about = {"machine": machine, "rounds": told.rounds, "scale": told.scale}
    about |= {"limits": limits(Path(tempfile.gettempdir()))}
    now: Results = {}

    def measured(workload: str, server: str, figures: Figures) -> None:
        # Written after each round: what has been measured survives whatever ends the run.
        shortened = {name: float(f"{value:.5g}") for name, value in figures.items()}
        now.setdefault(workload, {}).setdefault(server, []).append(shortened)
        if told.results:
            told.results.write_text(json.dumps(about | {"rows": rows | now}, indent=1) + "\n")

    measure(wanted, PEERS[told.peer], told.rounds, told.scale, measured)
    print(table(rows | now if told.results else now, WORKLOADS))
    return 1 if failures(now) else 0


if __name__ == "__main__":
    sys.exit(main())
