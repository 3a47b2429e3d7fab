"""Fixtures of the POP3 tests: a rig, and a password's hash made once."""

from __future__ import annotations

from functools import partial

import pytest

from mailstack.auth import passwords
from tests.pop3.rig import running
from tests.pop3.transcript import SECRET


@pytest.fixture(scope="session")
def password_hash() -> str:
    """The hash of the password that every transcript uses."""
    return passwords.hash_password(SECRET)


@pytest.fixture
def start(sqlite_url, tmp_path, password_hash):
    """Begin a rig: `async with start(...) as rig`."""
    return partial(running, sqlite_url, tmp_path, password_hash)
