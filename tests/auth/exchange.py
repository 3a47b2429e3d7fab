"""Drives a SASL exchange with literal answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mailstack.auth import sasl
from mailstack.auth.mechanisms import MECHANISMS
from mailstack.auth.sasl import Challenge, Channel

PLAINTEXT = Channel(plaintext=True)


def run(
    mechanism: str,
    responses: Iterable[bytes],
    *,
    initial: bytes | None = None,
    channel: Channel = PLAINTEXT,
    found: sasl.Found | None = None,
) -> tuple[Any, list[Any]]:
    """What the exchange returns, and all that it yielded; Enter and LogIn are answered "in"."""
    exchange = MECHANISMS[mechanism].begin(initial, channel)
    said = iter(responses)
    yielded: list[Any] = []
    answer: Any = None
    try:
        while True:
            yielded.append(exchange.send(answer))
            match yielded[-1]:
                case Challenge():
                    answer = next(said, None)
                    if answer is None:
                        return None, yielded
                case sasl.FindKeys():
                    answer = found
                case sasl.Judge():
                    answer = None
                case _:
                    answer = "in"
    except StopIteration as end:
        return end.value, yielded
