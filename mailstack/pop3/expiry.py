"""What EXPIRE announces (RFC 2449 §6.7): how long the server keeps what a client leaves on it."""

from __future__ import annotations

from mailstack.store.messages import Snapshot


def announced(_maildrop: Snapshot | None) -> str | None:
    """The argument of EXPIRE for an open maildrop, or for anybody's before login; None: say nothing.

    A client may delete or keep by what it reads here, so it has to come from the retention that is
    enforced for the account: until that is asked here, nothing is said.
    """
    return None
