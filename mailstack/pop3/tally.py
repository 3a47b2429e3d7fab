"""What a session did, as it is counted while it lasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailstack.store.runs import Runs

_MOST_RUNS: Final = 10_000
"""So many runs of messages are remembered, with gaps between: 160 KB."""


@dataclass(slots=True)
class Tally:
    """What a session did, for its line in the log."""

    retrieved: int = 0  # whole: by RETR, or by a TOP that is one
    retrieved_octets: int = 0
    deleted: int = 0
    deleted_octets: int = 0
    sending: tuple[int, int] | None = None  # the uid and octets of what is about to be sent whole
    sent: Runs | None = None  # the uids of what was sent whole; None: nothing, as in most sessions
    removed: Runs | None = None  # the uids of what QUIT has removed
    read: Runs | None = None  # the uids of what was sent whole and left there, from QUIT on

    @property
    def cut(self) -> bool:
        """Whether a message was about to be sent whole, and has not been."""
        return self.sending is not None

    def finish_sending(self) -> None:
        """What was to be sent has been sent, and counts from now on."""
        if self.sending is not None:
            uid, octets = self.sending
            if self.sent is None:
                self.sent = Runs(_MOST_RUNS)
            self.sent.add(uid)
            self.retrieved += 1
            self.retrieved_octets += octets
            self.sending = None
