"""The plots of a store that grows: `python -m bench.growth_plots bench/results-growth.json docs/images`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench.plots import Plot, Series, drawn


def plots(slices: list[dict[str, Any]]) -> list[Plot]:
    """How fast mail comes in, and how long a login takes, by what is there already."""

    def line(name: str, figure: str) -> list[Series]:
        return [Series(name, [(each["messages"], *(each[figure],) * 3) for each in slices])]

    marks = {each: f"{each:,.0f}" for each in (25_000.0, 100_000.0, 300_000.0, 1_000_000.0)}
    messages = "messages in the store, of 2 KB, in 1,000 maildrops"
    return [
        Plot(
            "growth-deposits.svg",
            "Messages into the store, a second",
            messages,
            "messages a second",
            line("100 at once, synced", "messages_a_second"),
            marks,
        ),
        Plot(
            "growth-logins.svg",
            "What a login asks of the store",
            messages,
            "microseconds",
            line("the lock and the counters, median of 400", "login_microseconds"),
            marks,
        ),
    ]


def main() -> None:
    """Draw both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    told = parser.parse_args()
    for plot in plots(json.loads(told.results.read_text())["fill"]["slices"]):
        (told.folder / plot.file).write_text(drawn(plot))
        print(told.folder / plot.file)


if __name__ == "__main__":
    main()
