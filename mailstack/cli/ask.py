"""What commands read from a person: addresses, passwords, a yes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from getpass import getpass

from mailstack import values
from mailstack.auth import prepare, schemes
from mailstack.auth.passwords import generate_password
from mailstack.cli import show
from mailstack.cli.exits import Unconfirmed, Usage
from mailstack.errors import BadAddress, BadPassword
from mailstack.mail.address import Mailbox, parse_mailbox, reason
from mailstack.settings import Settings

PASSWORD_OCTETS = 248
"""What fits between `PASS ` and the end of a line of 255 octets (RFC 2449 §4)."""


def mailbox(text: str, settings: Settings) -> Mailbox:
    """An address from the command line; without a domain it is in the default domain."""
    if "@" in text:
        return parsed(text)
    if settings.default_domain is None:
        raise BadAddress(f"{text} has no domain, and the settings name no default_domain")
    return parsed(f"{text}@{settings.default_domain}")


def source(text: str, settings: Settings) -> Mailbox:
    """As `mailbox`; `@example.org` is the domain's catch-all."""
    if text.startswith("@"):
        return Mailbox("", parsed(f"catch-all{text}").domain)
    local_part, _, domain = text.rpartition("@")
    if local_part == "*":
        raise BadAddress(
            f"a catch-all is written @{domain}; for an address of that name, quote it: '\"*\"@{domain}'"
        )
    return mailbox(text, settings)


def parsed(text: str, parse: Callable[[str], Mailbox] = parse_mailbox) -> Mailbox:
    """An address with its domain; the refusal repeats what was written."""
    try:
        return parse(text)
    except BadAddress as error:
        raise BadAddress(f"{text!r} is no address: {reason(error)}") from error


def host_name(text: str, option: str) -> str:
    """A host name that an option says; raises Usage."""
    try:
        return values.host_name(text)
    except ValueError as error:
        raise Usage(f"{option} {error}") from error


def password(*, stdin: bool) -> tuple[str, bool]:
    """A password, and whether it was made up here and so has to be shown, once."""
    if stdin:
        return typed(_line()), False
    if not _somebody_is_here():
        return generate_password(), True
    first = getpass("Password (empty: one is made up): ")
    if not first:
        return generate_password(), True
    if getpass("The same again: ") != first:
        raise BadPassword("the two passwords differ; nothing was changed")
    return typed(first), False


def own_password(*, stdin: bool) -> str:
    """The password that an account has; none is made up."""
    if not stdin and not _somebody_is_here():
        raise Usage("nobody is here to ask for the account's password: say --password-stdin")
    secret = _line() if stdin else getpass("Password: ")
    if not secret:
        raise BadPassword("the password is empty")
    return secret


def typed(secret: str) -> str:
    """As `checked`, for a place where somebody may put a password hash: it would be a password of its own."""
    if schemes.is_hash(secret):
        raise BadPassword(
            "this is a password hash, no password; mailstack account import takes hashes, in a column"
            " password_hash, and there {PLAIN} before what is a password all the same"
        )
    return checked(secret)


def checked(secret: str) -> str:
    """The password, if a client can send it in one line of POP3; else BadPassword says why not."""
    if not secret:
        raise BadPassword("the password is empty")
    if len(secret.encode("utf-8", "surrogateescape")) > PASSWORD_OCTETS:
        raise BadPassword(
            f"the password has more than {PASSWORD_OCTETS} octets, which no POP3 client could send"
        )
    if not secret.isprintable():
        raise BadPassword("the password has a control character, which no POP3 client could send")
    prepare.password(secret)  # or BadPassword: two mail programs might send it differently
    return secret


def _somebody_is_here() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()  # None: closed by whoever started us


def _line() -> str:
    if sys.stdin is None:
        raise BadPassword("there is no standard input, where the password has to come from")
    try:
        return sys.stdin.buffer.readline().decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadPassword("the password on standard input is not UTF-8 text") from error


def confirm(question: str, *, yes: bool) -> None:
    """Go on if `--yes` was given or the person says so; else raise Unconfirmed."""
    if yes:
        return
    if not _somebody_is_here():
        raise Usage(f"{question} Nobody is here to ask: say --yes")
    show.note(f"{question} [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Unconfirmed
