"""The fixture that tests of logins share."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.auth.rig import running


@pytest.fixture
def start(database_url: str, tmp_path: Path):
    """A server of logins whose accounts are jo (with keys), al (without) and di (disabled)."""
    return partial(running, database_url, tmp_path)
