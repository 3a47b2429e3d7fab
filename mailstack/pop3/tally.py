"""What a session did, as it is counted while it lasts."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailstack.store.runs import Runs


@dataclass(slots=True)
class Tally:
    """What a session did, for its line in the log."""

    retrieved: int = 0
    retrieved_octets: int = 0
    deleted: int = 0
    deleted_octets: int = 0
    sending: int | None = None  # the uid of what RETR is about to send
    sent: Runs = field(default_factory=Runs)  # the uids of what RETR has sent whole
    removed: Runs = field(default_factory=Runs)  # the uids of what QUIT has removed

    def finish_sending(self) -> None:
        """What was to be sent has been sent."""
        if self.sending is not None:
            self.sent.add(self.sending)
            self.sending = None
