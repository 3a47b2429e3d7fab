"""The package is the same octets whenever it is made."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.appliance.rootfs import ROOT

pytestmark = [pytest.mark.appliance, pytest.mark.long, pytest.mark.timeout(1200)]


def built(folder: Path) -> str:
    """The digest of the package that is built into this folder."""
    command = [sys.executable, "-m", "debian.build", folder, "--compression", "gzip"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=600)
    (made,) = folder.glob("mailstack_*_amd64.deb")
    return hashlib.sha256(made.read_bytes()).hexdigest()


def test_two_builds_of_one_commit_are_the_same_octets(tmp_path: Path) -> None:
    assert built(tmp_path / "one") == built(tmp_path / "other")
