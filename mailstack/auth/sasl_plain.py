"""The mechanisms that send the password itself: PLAIN (RFC 4616) and LOGIN."""

from __future__ import annotations

from mailstack.auth.sasl import Challenge, Channel, Exchange, LogIn, text
from mailstack.errors import BadResponse


def plain(initial: bytes | None, _channel: Channel) -> Exchange:
    """PLAIN (RFC 4616 §2): authorization identity, NUL, name, NUL, password."""
    response = (yield Challenge(b"")) if initial is None else initial
    parts = response.split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise BadResponse("PLAIN needs a name and a password")
    acting_as, name, secret = map(text, parts)
    return (yield LogIn(name, secret, acting_as))


def login(initial: bytes | None, _channel: Channel) -> Exchange:
    """LOGIN, which no RFC has and old clients use: the server asks for both (draft-murchison-sasl-login).

    The draft knows no initial response; those who send one (curl, Outlook, smtplib) mean the name.
    """
    name = text(initial or (yield Challenge(b"Username:")))
    secret = text((yield Challenge(b"Password:")))
    if not name or not secret:
        raise BadResponse("LOGIN needs a name and a password")
    return (yield LogIn(name, secret))
