"""The plots of docs/images, drawn from results: `python -m bench.plots bench/results.json docs/images`.

They say by themselves how they look in the light and in the dark, and take no library.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from bench.table import OURS, Results

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 66, 56
"""Around the plot itself."""

_NAMES = {
    "postfix+dovecot-sdbox": "Postfix + Dovecot (sdbox)",
    "postfix+dovecot-maildir": "Postfix + Dovecot (Maildir)",
}
_STYLE = """
svg { font: 13px system-ui, sans-serif; }
text { fill: #24292f; }
.soft { fill: #57606a; }
.title { font-size: 15px; font-weight: 600; }
.grid { stroke: #d0d7de; }
.back { fill: #ffffff; }
.s0 { stroke: #0969da; fill: #0969da; }
.s1 { stroke: #bc4c00; fill: #bc4c00; }
.s2 { stroke: #6e7781; fill: #6e7781; }
polyline.s0, polyline.s1, polyline.s2 { fill: none; stroke-width: 2.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .soft { fill: #9198a1; }
  .grid { stroke: #3d444d; }
  .back { fill: #0d1117; }
  .s0 { stroke: #58a6ff; fill: #58a6ff; }
  .s1 { stroke: #f0883e; fill: #f0883e; }
  .s2 { stroke: #9198a1; fill: #9198a1; }
}
"""


class Series(NamedTuple):
    """One line: a server's name, and for each x the least, the median and the most of its rounds."""

    name: str
    points: list[tuple[float, float, float, float]]


class Plot(NamedTuple):
    """What is drawn, with logarithmic axes."""

    file: str
    title: str
    x: str
    y: str
    lines: list[Series]
    named: dict[float, str] = {}  # noqa: RUF012  (read only)
    """Words for values of x, where they are few."""


# -- from the results --------------------------------------------------------------------------------


def by_workload(results: Results, rows: dict[str, float], figure: str) -> list[Series]:
    """A figure of several rows, each of which stands at an x."""
    servers = sorted(
        {server for row in rows for server in results.get(row, {})}, key=lambda name: name != OURS
    )
    found = []
    for server in servers:
        points = []
        for row, x in rows.items():
            if values := [each[figure] for each in results.get(row, {}).get(server, []) if figure in each]:
                points.append((x, min(values), statistics.median(values), max(values)))
        found.append(Series(server, points))
    return found


def by_load(results: Results, part: str) -> list[Series]:
    """Latency at each rate that was asked for."""
    found = []
    for server, rounds in results.get("latency against load", {}).items():
        told: dict[float, list[float]] = {}
        for each in rounds:
            for figure, value in each.items():
                if match := re.fullmatch(rf"{part}_ms_at_(\d+)", figure):
                    told.setdefault(float(match[1]), []).append(value)
        points = [(rate, min(v), statistics.median(v), max(v)) for rate, v in sorted(told.items())]
        found.append(Series(server, points))
    return found


def plots(results: Results) -> list[Plot]:
    """All that the results have figures for."""
    connections = {f"2 KB, {n} connection{'s' * (n > 1)} x 20": float(n) for n in (1, 10, 100)}
    sizes = {
        "2 KB, 10 connections x 20": 2048.0,
        "50 KB, 10 connections x 20": 51_200.0,
        "5 MB, 4 connections x 5": 5_242_880.0,
    }
    words = {2048.0: "2 KB", 51_200.0: "50 KB", 5_242_880.0: "5 MB"}
    return [
        Plot(
            "throughput-connections.svg",
            "Messages of 2 KB that are visible in a maildrop, a second",
            "connections that send at once",
            "messages a second",
            by_workload(results, connections, "visible_per_second"),
            {1: "1", 10: "10", 100: "100"},
        ),
        Plot(
            "throughput-size.svg",
            "Messages that are visible in a maildrop, a second, by their size",
            "size of a message",
            "messages a second",
            by_workload(results, sizes, "visible_per_second"),
            words,
        ),
        Plot(
            "cpu-size.svg",
            "CPU for a message, all processes of the server",
            "size of a message",
            "milliseconds",
            by_workload(results, sizes, "cpu_ms"),
            words,
        ),
        Plot(
            "latency-load.svg",
            "Time of an SMTP transaction, the 99th percentile, at a given rate",
            "messages a second that are offered (2 KB)",
            "milliseconds",
            by_load(results, "p99"),
        ),
    ]


# -- drawing -----------------------------------------------------------------------------------------


def _ticks(least: float, most: float) -> list[float]:
    """1, 2 and 5 of each power of ten in between; powers alone where these are many."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    steps = (1, 2, 5) if len(powers) < 6 else (1,)
    found = (step * 10.0**power for power in powers for step in steps)
    return [each for each in found if least * 0.999 <= each <= most * 1.001]


def _scale(values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    room = high - low or 1.0
    return lambda value: start + (math.log10(value) - low) / room * (end - start)


def drawn(plot: Plot) -> str:
    """The plot as SVG."""
    every = [point for line in plot.lines for point in line.points]
    xs = [point[0] for point in every]
    ys = [value for point in every for value in point[1:]]
    ys = [min(ys) / 1.3, max(ys) * 1.3]
    x, y = _scale(xs, LEFT + 16, WIDTH - RIGHT - 16), _scale(ys, HEIGHT - BOTTOM, TOP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(plot.title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
        _text(20, 26, plot.title, "title"),
    ]
    for tick in _ticks(*ys):
        out.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        )
        out.append(_text(LEFT - 8, y(tick) + 4, _number(tick), "soft", "end"))
    for tick in plot.named or _ticks(min(xs), max(xs)):
        if min(xs) <= tick <= max(xs):
            out.append(
                _text(x(tick), HEIGHT - BOTTOM + 20, plot.named.get(tick, _number(tick)), "soft", "middle")
            )
    out.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, plot.x, "soft", "middle"))
    out.append(
        f'<text class="soft" text-anchor="middle" transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2})'
        f' rotate(-90)">{escape(plot.y)}</text>'
    )
    for number, line in enumerate(plot.lines):
        out += _line(number, line, x, y)
    out.append("</svg>")
    return "\n".join(out) + "\n"


def _line(
    number: int, line: Series, x: Callable[[float], float], y: Callable[[float], float]
) -> Iterable[str]:
    kind = f"s{number}"
    yield f'<rect class="{kind}" x="{20 + number * 210}" y="40" width="12" height="12"/>'
    yield _text(38 + number * 210, 51, _NAMES.get(line.name, line.name))
    way = " ".join(f"{x(point[0]):.1f},{y(point[2]):.1f}" for point in line.points)
    yield f'<polyline class="{kind}" points="{way}"/>'
    for at, least, middle, most in line.points:
        across = f"{x(at):.1f}"
        yield f'<line class="{kind}" x1="{across}" x2="{across}" y1="{y(least):.1f}" y2="{y(most):.1f}"/>'
        yield f'<circle class="{kind}" cx="{across}" cy="{y(middle):.1f}" r="4"/>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def main() -> None:
    """Draw what there are figures for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    told = parser.parse_args()
    for plot in plots(json.loads(told.results.read_text())["rows"]):
        if any(line.points for line in plot.lines):
            (told.folder / plot.file).write_text(drawn(plot))
            print(told.folder / plot.file)


if __name__ == "__main__":
    main()
