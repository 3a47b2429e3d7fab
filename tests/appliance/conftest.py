"""Fixtures: a machine in a box, fresh or with mailstack installed and set up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.appliance import box as boxes
from tests.appliance.box import Box
from tests.appliance.rootfs import CannotBuild, rootfs

MakeBox = Callable[..., Box]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[MakeBox]:
    """Makes a booted box of a Debian suite; skips, with the reason, where this machine cannot."""
    if reason := boxes.reason_to_skip():
        pytest.skip(reason)
    with ExitStack() as stack:

        def make(suite: str, *packages: str) -> Box:
            try:
                root = rootfs(suite, *packages)
            except CannotBuild as error:
                pytest.skip(str(error))
            made = stack.enter_context(Box(tmp_path / suite, root))
            made.boot()
            return made

        yield make
