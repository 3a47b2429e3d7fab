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
from contextlib import ExitStack
from pathlib import Path

from bench import load, servers
from bench.workloads import WORKLOADS, Figures, Workload, empty

USERS = 200
Results = dict[str, dict[str, list[Figures]]]
"""For each workload and server, what each round found."""

_UNITS = {
    "visible_per_second": "visible/s",
    "accepted_per_second": "accepted/s",
    "sessions_per_second": "sessions/s",
    "messages_per_second": "messages/s",
    "megabytes_per_second": "MB/s",
    "cpu_ms": "CPU ms each",
    "kib": "KiB each",
}
_LESS_IS_BETTER = {"cpu_ms", "kib"}


def measured(wanted: list[Workload], rounds: int, scale: float, storage: str) -> Results:
    """All rounds, with progress on standard error."""
    found: Results = {each.name: {} for each in wanted}
    with tempfile.TemporaryDirectory(prefix="mailstack-bench-") as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)  # Postfix and Dovecot have users of their own
        running = (
            stack.enter_context(servers.mailstack(Path(folder, "ours"), USERS)),
            stack.enter_context(servers.peer(Path(folder, "peer"), USERS, storage)),
        )
        for server in running:  # first logins pay a hash, and first processes are started
            empty(server)
        for number in range(1, rounds + 1):
            for workload in wanted:
                # Who went first goes second in the next round.
                for server in running if number % 2 else reversed(running):
                    began = time.monotonic()
                    figures = workload.run(server, scale)
                    found[workload.name].setdefault(server.name, []).append(figures)
                    seconds = time.monotonic() - began
                    print(f"round {number}: {workload.name}: {server.name} {seconds:.1f} s", file=sys.stderr)
    return found


def table(found: Results, wanted: list[Workload]) -> str:
    """Medians with their spread, and ours over the peer's."""
    lines = ["| workload | figure | mailstack | Postfix + Dovecot | ratio |", "|---|---|---|---|---|"]
    for workload in wanted:
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
    parser.add_argument("--only", default="", help="workloads whose names have this in them")
    parser.add_argument("--results", type=Path, help="write all figures of all rounds there, as JSON")
    told = parser.parse_args()
    if not load.PROGRAM.exists():
        subprocess.run(["make", "-s", "-C", str(load.PROGRAM.parent)], check=True)
    wanted = [each for each in WORKLOADS if told.only in each.name]
    found = measured(wanted, told.rounds, told.scale, told.storage)
    print(table(found, wanted))
    if told.results:
        machine = f"{platform.machine()}, {platform.release()}, Python {platform.python_version()}"
        about = {"machine": machine, "rounds": told.rounds, "scale": told.scale, "storage": told.storage}
        told.results.write_text(json.dumps(about | {"rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
