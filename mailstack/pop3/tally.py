"""What a session did, as it is counted while it lasts."""

from __future__ import annotations

from dataclasses import dataclass

from mailstack.store.runs import Runs


@dataclass(slots=True)
class Tally:
    """What a session did, for its line in the log."""

    retrieved: int = 0  # by RETR, whole
    retrieved_octets: int = 0
    deleted: int = 0
    deleted_octets: int = 0
    _sending: int | None = None  # the uid of what RETR is about to send
    _sending_octets: int = 0
    sent: Runs | None = None  # the uids of what RETR has sent whole; None: nothing, as in most sessions
    removed: Runs | None = None  # the uids of what QUIT has removed

    @property
    def cut(self) -> bool:
        """Whether a message was begun and has not been sent whole."""
        return self._sending is not None

    def begin_sending(self, uid: int, octets: int) -> None:
        """RETR is about to send a message; it counts once it has been sent."""
        self._sending, self._sending_octets = uid, octets

    def finish_sending(self) -> None:
        """What was to be sent has been sent."""
        if self._sending is not None:
            if self.sent is None:
                self.sent = Runs()
            self.sent.add(self._sending)
            self.retrieved += 1
            self.retrieved_octets += self._sending_octets
            self._sending = None
