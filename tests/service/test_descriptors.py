"""A shell's limit of open files is not the server's."""

from __future__ import annotations

import re
import resource
from pathlib import Path

from tests.support.appliance import Appliance


def test_a_process_may_open_as_many_files_as_the_system_allows(appliance: Appliance) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    try:
        appliance.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limits = Path(f"/proc/{appliance.processes[0].pid}/limits").read_text()
    found = re.search(r"Max open files +(\w+) +(\w+)", limits)
    assert found
    assert found[1] == found[2]
