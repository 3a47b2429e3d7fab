"""What zstd would do to stored mail: `python -m bench.compression FOLDER`, a folder of *.eml files.

Wants the module that is `compression.zstd` from Python 3.14 on: `pip install backports.zstd`. Each
message is cut into parts as the store does, each part compressed alone, as it would have to be for
RETR and TOP to begin anywhere. The dictionary is made from one half of the messages and all figures
are those of the other half. A part that does not become smaller would be kept as it is.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from backports import zstd

from mailstack.mail.lines import canonical
from mailstack.mail.spool import PART_OCTETS
from mailstack.store.parts import content_id
from mailstack.store.sqlite import PAGE_OCTETS

Parts = list[bytes]

BOUNDS = (0, 4 << 10, 16 << 10, 64 << 10, 1 << 20, 1 << 40)
"""Octets of a message, between which a class lies."""

DICTIONARY_OCTETS = 64 << 10
BATCH = 100
LEAST_SECONDS = 0.3
"""CPU time that a figure is taken over."""


class Way(NamedTuple):
    """A way to compress one part, and back."""

    name: str
    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], bytes]

    def packed(self, parts: Iterable[bytes]) -> Parts:
        """As they would be stored."""
        return [min(self.pack(each), each, key=len) for each in parts]


def ways(dictionary: zstd.ZstdDict) -> list[Way]:
    """Those that are compared."""
    found = []
    for level in (1, 3, 9, 19):
        for shared in (None, dictionary):
            # Made once: to load a dictionary takes longer than to compress a small message.
            compressor = zstd.ZstdCompressor(level=level, zstd_dict=shared)

            def pack(part: bytes, compressor: zstd.ZstdCompressor = compressor) -> bytes:
                return compressor.compress(part, compressor.FLUSH_FRAME)

            def unpack(part: bytes, shared: zstd.ZstdDict | None = shared) -> bytes:
                return zstd.decompress(part, shared)

            found.append(Way(f"{level}{' with dictionary' if shared else ''}", pack, unpack))
    return found


def messages(folder: Path) -> list[Parts]:
    """Every message, in parts, with the line ends that we store."""
    found = []
    for file in sorted(folder.rglob("*.eml")):
        content = canonical(file.read_bytes())
        found.append([content[at : at + PART_OCTETS] for at in range(0, len(content), PART_OCTETS)])
    return [parts for parts in found if parts]


def microseconds(work: Callable[[bytes], bytes], parts: Sequence[bytes]) -> float:
    """CPU time for all of the parts, once."""
    rounds, began = 0, time.process_time()
    while (spent := time.process_time() - began) < LEAST_SECONDS:
        for part in parts:
            work(part)
        rounds += 1
    return spent / rounds * 1e6


def octets(parts: Iterable[bytes]) -> int:
    """Of all of them."""
    return sum(map(len, parts))


def on_disk(stored: Sequence[Parts]) -> tuple[int, int]:
    """Octets of a database that holds the parts, and of what passed through its log."""
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "mail.db", isolation_level=None)
        for pragma in (f"page_size={PAGE_OCTETS}", "journal_mode=WAL", "wal_autocheckpoint=0"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE content (id INTEGER PRIMARY KEY, octets BLOB NOT NULL)")
        for start in range(0, len(stored), BATCH):
            connection.execute("BEGIN")
            for number, parts in enumerate(stored[start : start + BATCH], start + 1):
                rows = ((content_id(number, at), part) for at, part in enumerate(parts))
                connection.executemany("INSERT INTO content VALUES (?, ?)", rows)
            connection.execute("COMMIT")
        logged = (Path(folder) / "mail.db-wal").stat().st_size
        connection.close()  # which copies the log back
        return (Path(folder) / "mail.db").stat().st_size, logged


def run() -> None:
    """Print a table for each class of sizes, and one of what it is on the disk."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    found = messages(parser.parse_args().folder)
    samples = [part[: 16 << 10] for parts in found[::2] for part in parts[:1]]
    compared = ways(zstd.train_dict(samples, DICTIONARY_OCTETS))
    measured = found[1::2]
    print(f"{len(found)} messages; the dictionary is from {len(samples)}, {len(measured)} are measured")
    print("\n| octets of a message | messages | level | size | CPU us in | CPU us out | MB/s out |")
    print("|---|---|---|---|---|---|---|")
    for least, most in pairwise(BOUNDS):
        of_class = [parts for parts in measured if least <= octets(parts) < most]
        plain = [part for parts in of_class for part in parts]
        for way in compared if plain else ():
            packed = way.packed(plain)
            smaller = [each for each, was in zip(packed, plain, strict=True) if len(each) < len(was)]
            back = microseconds(way.unpack, smaller)
            print(
                f"| {least:,} to {most:,} | {len(of_class)} | {way.name}"
                f" | {octets(packed) / octets(plain):.2f}"
                f" | {microseconds(way.pack, plain) / len(of_class):,.0f}"
                f" | {back / len(of_class):,.0f} | {octets(plain) / back:,.0f} |"
            )
    print("\n| octets of a message | level | file | log |\n|---|---|---|---|")
    for name, of_size in (
        ("any", measured),
        (f"below {BOUNDS[3]:,}", [parts for parts in measured if octets(parts) < BOUNDS[3]]),
    ):
        plain_file, plain_log = on_disk(of_size)
        for way in compared:
            file, logged = on_disk([way.packed(parts) for parts in of_size])
            print(f"| {name} | {way.name} | {file / plain_file:.2f} | {logged / plain_log:.2f} |")


if __name__ == "__main__":
    run()
