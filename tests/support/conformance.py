"""The tables of docs/*-conformance.md, written from the headers of the transcripts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol


class Shown(Protocol):
    """A transcript of either protocol."""

    section: str
    behaviour: str
    file: str


def table(transcripts: Iterable[Shown]) -> str:
    """A row for each transcript, ordered by RFC and section."""
    rows = sorted(transcripts, key=lambda transcript: _order(transcript.section))
    return "| RFC | behaviour | file |\n|---|---|---|\n" + "".join(
        f"| {each.section} | {_escaped(each.behaviour)} | `{each.file}` |\n" for each in rows
    )


def _order(section: str) -> tuple[int, ...]:
    """By number, an RFC's appendices behind its sections; ValueError where it cites something else."""
    first = re.match(r"RFC (\d+) (?:§|appendix )([\d.A-Z]+)", section)
    if not first:
        raise ValueError(f"a transcript cites `RFC number §section`, not {section!r}")
    return (int(first[1]), *(ord(part) if part.isalpha() else int(part) for part in first[2].split(".")))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
