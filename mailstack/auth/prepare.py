"""Names and passwords as they are compared: two ways to type the same text give the same octets.

SASLprep (RFC 4013) is what SCRAM (RFC 5802 §2.2) and PLAIN (RFC 4616 §2) ask for; passlib has it, and
is imported for the first text that is not ASCII.
"""

from __future__ import annotations

from mailstack.errors import BadPassword


def password(secret: str) -> str:
    """The password in its one spelling; raises BadPassword where RFC 4013 has none for it."""
    if secret.isascii() and secret.isprintable():
        return secret
    try:
        return _prepared(secret)
    except ValueError as error:
        raise BadPassword(
            "the password has characters that mail programs do not send alike (RFC 4013)"
        ) from error


def spellings(text: str) -> tuple[str, ...]:
    """The text itself, then its SASLprep form where that differs.

    The order matters: an address that somebody was given is found as it is, whatever RFC 4013, which
    knows no character younger than Unicode 3.2, makes of it.
    """
    if text.isascii():
        return (text,)
    try:
        return tuple(dict.fromkeys((text, _prepared(text))))
    except ValueError:
        return (text,)


def _prepared(text: str) -> str:
    from passlib.utils import saslprep

    return str(saslprep(text))
