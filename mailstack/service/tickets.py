"""The keys of session tickets (RFC 5077, RFC 8446 §4.6.1), the same in all workers.

OpenSSL gives each context keys of its own, for as long as it lives: a client that comes back would be
known by one worker alone, and never after a reload. So the keys are made of a secret that the
supervisor's workers share, of the certificate, and of the day: a session is not resumed under another
certificate than it began with, nor can old tickets be read by who steals the keys of a later day
(RFC 9325 §3.4: keys are changed regularly and destroyed, tickets end before them; OpenSSL's after 2 hours).

Where they cannot be set (`openssl.py`), contexts keep the keys that they were made with.
"""

from __future__ import annotations

import hashlib
import secrets
import ssl
import time
from typing import Final

from mailstack.service import openssl
from mailstack.values import DAY_SECONDS

KEY_SECONDS: Final = DAY_SECONDS
"""So long tickets are made with the same keys."""


class TicketKeys:
    """A secret and the day that it is for; made before the workers are forked, who then have the same."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._day = _today()

    def turn(self) -> float:
        """Forget the keys of days that are over; returns in how many seconds there is more to forget."""
        while self._day < _today():
            self._secret = hashlib.sha256(self._secret).digest()
            self._day += 1
        return (self._day + 1) * KEY_SECONDS - time.monotonic()

    def give(self, context: ssl.SSLContext, purpose: bytes) -> bool:
        """Have new tickets of this context be good for all contexts of this purpose, today.

        False where it keeps its own keys.
        """
        self.turn()
        keys = hashlib.shake_256(self._secret + purpose).digest(openssl.TICKET_KEYS_OCTETS)
        return openssl.set_ticket_keys(context, keys)


def _today() -> int:
    """Days of the system's clock that nobody sets, which is one for all processes."""
    return int(time.monotonic() // KEY_SECONDS)
