"""The mechanisms there are, in the order in which they are offered: the strongest first.

EXTERNAL is not among them, since no client certificate is asked for; nor is anything that needs the
plain password in the store (CRAM-MD5, DIGEST-MD5).
"""

from __future__ import annotations

from typing import Final

from mailstack.auth import sasl_plain, sasl_scram
from mailstack.auth.sasl import Channel, Mechanism

MECHANISMS: Final[dict[str, Mechanism]] = {
    "SCRAM-SHA-256-PLUS": Mechanism(sasl_scram.sha256_plus, needs_keys=True, needs_end_point=True),
    "SCRAM-SHA-256": Mechanism(sasl_scram.sha256, needs_keys=True),
    "PLAIN": Mechanism(sasl_plain.plain, needs_plaintext=True),
    "LOGIN": Mechanism(sasl_plain.login, needs_plaintext=True),
}


def offered(channel: Channel, *, keys: bool) -> tuple[str, ...]:
    """The names of those that work on this channel."""
    return tuple(name for name, each in MECHANISMS.items() if each.works(channel, keys=keys))
