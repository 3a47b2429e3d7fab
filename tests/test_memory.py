"""What the allocator keeps and what it gives back, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from mailstack import memory
from mailstack.mail.spool import PART_OCTETS

_FAULTS: Final = """
import resource, threading
from mailstack import memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def fill(rounds):
    for _ in range(rounds):
        blocks = [b"x" * {octets} for _ in range({count})]
        blocks.clear()

def measured():
    fill(3)
    before = faults()
    fill(10)
    print((faults() - before) / 10)

memory.tell_allocator({large_octets})
for run in measured, lambda: (thread := threading.Thread(target=measured), thread.start(), thread.join()):
    run()
"""


def _faults(octets: int, count: int, *, large_octets: int = memory.SERVING_OCTETS) -> list[float]:
    """Pages that come from the system for so many blocks each time: in the first thread, in another."""
    script = _FAULTS.format(octets=octets, count=count, large_octets=large_octets)
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other C libraries do as they like")


def test_what_is_read_ahead_uses_memory_that_was_freed() -> None:
    assert max(_faults(50_000, 50)) < 50


def test_large_blocks_go_back_to_the_system() -> None:
    assert min(_faults(1024 * 1024, 2)) > 2 * 200


def test_the_process_that_writes_uses_the_memory_of_whole_parts_again() -> None:
    assert max(_faults(PART_OCTETS, 8, large_octets=memory.WRITING_OCTETS)) < 50
