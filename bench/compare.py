"""mailstack beside Postfix and Dovecot, in turns on one machine: `make bench`.

Both run all the time, and each workload is given to one and then to the other, in every round, so
that a machine that grows slower does so for both. Both sync every commit. Neither pays a password's
hash: the peer keeps passwords as they are, and ours remembers logins for some minutes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import load, servers
from bench.limits import limits
from bench.workloads import WORKLOADS, Figures, Workload, empty, poll

USERS = 200
Results = dict[str, dict[str, list[Figures]]]
"""For each workload and server, what each round found."""

_UNITS = {
    "visible_per_second": "visible/s",
    "accepted_per_second": "accepted/s",
    "sessions_per_second": "sessions/s",
    "messages_per_second": "messages/s",
    "megabytes_per_second": "MB/s",
    "first_per_second": "first logins/s",
    "smtp_percent": "% of SMTP alone",
    "pop3_percent": "% of polls alone",
    "cpu_ms": "CPU ms each",
    "first_cpu_ms": "CPU ms a first login",
    "cpu_us_a_megabyte": "CPU µs a MB",
    "transaction_p99_ms": "p99 of a transaction, ms",
    "session_p99_ms": "p99 of a session, ms",
    "session_p50_ms": "login, STAT, UIDL: ms",
    "poll_ms": "poll with one new message: ms",
    "kib": "KiB each",
    "mib": "MiB in all",
}
_LESS_IS_BETTER = {
    name for name in _UNITS if name.startswith(("cpu", "first_cpu", "kib", "mib")) or "_ms" in name
}


def measured(wanted: Sequence[Workload], rounds: int, scale: float, storage: str) -> Results:
    """All rounds, with progress on standard error."""
    found: Results = {each.name: {} for each in wanted}

    def once(number: int, workload: Workload, server: servers.Server) -> None:
        began = time.monotonic()
        figures = workload.run(server, scale)
        found[workload.name].setdefault(server.name, []).append(figures)
        seconds = time.monotonic() - began
        print(f"round {number}: {workload.name}: {server.name} {seconds:.1f} s", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="mailstack-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # Postfix and Dovecot have users of their own
        shared = [each for each in wanted if each.fresh is None]
        if shared:
            running = (
                stack.enter_context(servers.mailstack(folder / "ours", USERS)),
                stack.enter_context(servers.peer(folder / "peer", USERS, storage)),
            )
            for server in running:  # first logins pay a hash, and first processes are started
                empty(server)
                poll(server, 0.25)
            for number in range(1, rounds + 1):
                for workload in shared:
                    # Who went first goes second in the next round.
                    for server in running if number % 2 else reversed(running):
                        once(number, workload, server)
        stack.close()
        for number in range(1, rounds + 1):
            for workload in wanted:
                if workload.fresh is not None:
                    users, roles, scheme = workload.fresh
                    with servers.mailstack(folder / f"ours{time.monotonic()}", users, roles) as server:
                        once(number, workload, server)
                    with servers.peer(folder / f"peer{time.monotonic()}", users, storage, scheme) as server:
                        once(number, workload, server)
    return found


def table(found: Results, wanted: Sequence[Workload]) -> str:
    """Medians with their spread, and ours over the peer's."""
    lines = ["| workload | figure | mailstack | Postfix + Dovecot | ratio |", "|---|---|---|---|---|"]
    for workload in (each for each in wanted if found.get(each.name)):
        for figure in workload.shown:
            values = [
                [each[figure] for each in rounds if figure in each]
                for rounds in found[workload.name].values()
            ]
            if len(values) < 2 or not all(values):
                continue
            ours, peers = (statistics.median(each) for each in values)
            ratio = ours / peers if peers else float("nan")
            said = f"1/{1 / ratio:.1f}" if figure in _LESS_IS_BETTER and 0 < ratio < 1 else f"{ratio:.2f}"
            cells = [workload.name, _UNITS[figure], *map(_spread, values), said]
            lines.append(f"| {' | '.join(cells)} |")
        failed = sum(each.get("failed", 0) for rounds in found[workload.name].values() for each in rounds)
        if failed:
            lines.append(f"| {workload.name} | **failed** | | | {failed:.0f} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{_short(statistics.median(values))} [{_short(min(values))}..{_short(max(values))}]"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=0.5, help="multiplies all counts")
    parser.add_argument("--storage", choices=("sdbox", "maildir"), default="sdbox", help="the peer's")
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORDS", help="workloads whose names have this in them"
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="all figures, as JSON; what is there of other workloads stays",
    )
    told = parser.parse_args()
    if not load.PROGRAM.exists():
        subprocess.run(["make", "-s", "-C", str(load.PROGRAM.parent)], check=True)
    wanted = [each for each in WORKLOADS if not told.only or any(words in each.name for words in told.only)]
    rows: Results = (
        json.loads(told.results.read_text())["rows"] if told.results and told.results.exists() else {}
    )
    rows |= measured(wanted, told.rounds, told.scale, told.storage)
    print(table(rows, WORKLOADS))
    if told.results:
        machine = f"{platform.machine()}, {platform.release()}, Python {platform.python_version()}"
        about = {"machine": machine, "rounds": told.rounds, "scale": told.scale, "storage": told.storage}
        about |= {"limits": limits(Path(tempfile.gettempdir()))}
        told.results.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
