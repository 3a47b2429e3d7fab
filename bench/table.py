"""The table: medians with their spread, ours over the peer's, and what is aimed at."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bench.rows import KINDS, Aim, Workload
from bench.workloads import Figures

OURS = "mailstack"
Results = dict[str, dict[str, list[Figures]]]
"""For each workload and server, what each round found."""


def table(found: Results, workloads: Iterable[Workload]) -> str:
    """In Markdown; the peer of a line is the better one of those that were measured."""
    lines = [
        "| workload | figure | mailstack | Postfix + Dovecot | storage | ratio | aim | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for workload in workloads:
        lines += (f"| {' | '.join(cells)} |" for cells in _lines(workload, found.get(workload.name, {})))
    return "\n".join(lines)


def failures(found: Results) -> int:
    """Requests that were refused or not answered, in all rounds of all servers."""
    every = [each for servers in found.values() for rounds in servers.values() for each in rounds]
    return int(sum(each.get("failed", 0) + each.get("missed", 0) for each in every))


def _lines(workload: Workload, servers: Mapping[str, list[Figures]]) -> Iterator[list[str]]:
    for number, aim in enumerate(workload.aims):
        values = {name: _values(rounds, aim.figure) for name, rounds in servers.items()}
        ours = values.pop(OURS, [])
        if not ours:
            continue
        yield [workload.name if not number else "", *_line(aim, ours, {k: v for k, v in values.items() if v})]
    for name, rounds in servers.items():
        if failed := failures({"": {name: rounds}}):
            yield [workload.name, f"**{failed} failed**", name, "", "", "", "", ""]


def _values(rounds: Iterable[Figures], figure: str) -> list[float]:
    return [each[figure] for each in rounds if figure in each]


def _line(aim: Aim, ours: list[float], peers: Mapping[str, list[float]]) -> list[str]:
    kind = KINDS[aim.figure]
    now = statistics.median(ours)
    if not peers:
        return [kind.unit, spread(ours), "", "", "", *_judged(aim, now, None)]
    best = (min if kind.cost else max)(peers, key=lambda name: statistics.median(peers[name]))
    other = statistics.median(peers[best])
    times = (other / now if kind.cost else now / other) if now > 0 and other > 0 else None
    storage = best.rpartition("-")[2]
    return [
        kind.unit,
        spread(ours),
        spread(peers[best]),
        storage,
        _ratio(times, kind.cost),
        *_judged(aim, now, times),
    ]


def _judged(aim: Aim, now: float, times: float | None) -> tuple[str, str]:
    """The aim in words, and whether it is met."""
    cost = KINDS[aim.figure].cost
    if aim.bound is not None:
        met = now <= aim.bound if cost else now >= aim.bound
        return f"{'≤' if cost else '≥'} {aim.bound:g}", "met" if met else "**missed**"
    if aim.times is None:
        return "", ""
    wanted = f"≤ 1/{aim.times:g}" if cost else f"≥ {aim.times:g}"
    if times is None:
        return wanted, ""
    return wanted, "met" if times >= aim.times else "**missed**"


def _ratio(times: float | None, cost: bool) -> str:
    """How many times the peer's figure ours is; a cost that is lower as a fraction."""
    if times is None:
        return ""
    return f"{times:.2f}" if not cost else f"1/{times:.1f}" if times > 1 else f"{1 / times:.2f}"


def spread(values: Sequence[float]) -> str:
    """Their median, the least and the most of them."""
    if len(values) == 1:
        return _short(values[0])
    return f"{_short(statistics.median(values))} [{_short(min(values))}..{_short(max(values))}]"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
