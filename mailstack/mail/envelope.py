"""The envelope of RFC 5321 §2.3.1: who sent a message, and whose maildrops it goes to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from mailstack.mail.address import Mailbox

Bound = tuple[int | None, int | None]
"""The octets and messages with which a maildrop takes no more; None: however many."""

UNBOUNDED: Final[Bound] = (None, None)


class Envelope:
    """A mail transaction between MAIL and the end of data."""

    __slots__ = ("accounts", "declared_octets", "forward_paths", "reverse_path", "routes", "utf8")

    def __init__(self, reverse_path: Mailbox | None, *, declared_octets: int = 0, utf8: bool = False) -> None:
        self.reverse_path = reverse_path
        """None is the null reverse-path `<>`."""
        self.declared_octets = declared_octets
        """SIZE= of MAIL (RFC 1870), 0 where it was not given."""
        self.utf8 = utf8
        """Whether MAIL said SMTPUTF8 (RFC 6531)."""
        self.forward_paths: list[Mailbox] = []
        """What was accepted at RCPT, in order; one that came twice is here twice."""
        self.accounts: dict[int, tuple[Mailbox, Bound]] = {}
        """Each account that gets the message, once, with the forward-path that named it first."""
        self.routes: list[Mapping[int, Bound]] = []
        """The accounts behind each of the forward-paths."""

    def add(self, forward_path: Mailbox, route: Mapping[int, Bound]) -> None:
        """Accept a recipient; an account that is reached twice gets the message once."""
        self.forward_paths.append(forward_path)
        self.routes.append(route)
        for account_id, bound in route.items():
            self.accounts.setdefault(account_id, (forward_path, bound))

    def without(self, account_ids: Collection[int]) -> Envelope:
        """What is left of it where these accounts are no longer there."""
        left = Envelope(self.reverse_path, declared_octets=self.declared_octets, utf8=self.utf8)
        for forward_path, route in zip(self.forward_paths, self.routes, strict=True):
            if there := {each: route[each] for each in route if each not in account_ids}:
                left.add(forward_path, there)
        return left

    @property
    def only_recipient(self) -> Mailbox | None:
        """The recipient, where naming it tells nobody about another one."""
        return self.forward_paths[0] if len(self.forward_paths) == 1 else None
