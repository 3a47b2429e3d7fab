"""A loop whose clock jumps to what is due next: what takes seconds is over at once, and always the same."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Jump(selectors.SelectSelector):
    """Nothing is ever ready: whoever waits for time has it."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing is due")
        self.passed += max(timeout, 0.0)
        return []


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.passed


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """As `asyncio.run`; raises RuntimeError where nobody would ever be woken."""
    loop = _Loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
