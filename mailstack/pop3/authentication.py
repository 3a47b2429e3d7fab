"""AUTH (RFC 5034): one SASL exchange, told in POP3's lines."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from mailstack.auth import sasl
from mailstack.auth.mechanisms import MECHANISMS
from mailstack.auth.sasl import Challenge
from mailstack.errors import BadResponse
from mailstack.pop3.asks import Ask
from mailstack.pop3.commands import BadCommand, Refused

LINE_OCTETS: Final = sasl.MAX_RESPONSE_OCTETS - 2
"""The longest response without its CRLF: longer than commands may be (RFC 5034 §4)."""

Step = Generator[Ask, Any, Any]
"""Runs to the next Challenge, or to the end: then it returns what the last ask was answered with."""


class Dialogue:
    """From the AUTH command to its last reply; its owner drops it when it has failed."""

    __slots__ = ("_exchange", "_started", "mechanism")

    def __init__(self, mechanism: str, initial: str | None, channel: sasl.Channel) -> None:
        """Raises BadCommand where the initial response is not base64."""
        try:
            response = sasl.initial_response(None if initial is None else initial.encode("utf-8"))
        except BadResponse as error:
            raise BadCommand(str(error)) from error
        self.mechanism: Final = mechanism
        self._exchange = MECHANISMS[mechanism].begin(response, channel)

    def begin(self) -> Step:
        """The first step."""
        return self._run(None)

    def respond(self, line: bytes) -> Step:
        """The step after a response."""
        if line == b"*":
            raise Refused("cancelled")
        if len(line) > LINE_OCTETS:
            raise BadCommand("line too long")
        try:
            return self._run(sasl.decoded(line))
        except BadResponse as error:
            raise BadCommand(str(error)) from error

    def _run(self, response: bytes | None) -> Step:
        try:
            step = self._exchange.send(response)
            while not isinstance(step, Challenge):
                try:
                    answer = yield step
                except Exception as error:
                    step = self._exchange.throw(error)
                else:
                    step = self._exchange.send(answer)
        except StopIteration as end:
            return end.value
        except BadResponse as error:
            raise BadCommand(str(error)) from error
        return step
