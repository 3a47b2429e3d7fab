"""Paths and mailboxes of RFC 5321 §4.1.2 and RFC 6531 §3.3, parsed by their own grammar.

The email package parses header addresses (RFC 5322), where comments, folding and obsolete forms are
allowed; on the wire of SMTP each of these is an attack. Text comes in decoded; no value that leaves
this module holds a control character, so it can stand in a trace field or a log line as it is.
"""

from __future__ import annotations

import re
import socket
import unicodedata
from functools import lru_cache
from typing import NamedTuple

from mailstack.errors import BadAddress, BadParameter

MAX_LOCAL_PART_OCTETS = 64  # RFC 5321 §4.5.3.1.1, counted without quotes and backslashes; not of a sender
MAX_DOMAIN_OCTETS = 255  # RFC 5321 §4.5.3.1.2
MAX_PATH_OCTETS = 256  # RFC 5321 §4.5.3.1.3, with the angle brackets
MAX_LABEL_OCTETS = 63  # RFC 1035 §2.3.4

# UTF8-non-ascii, without what would break a line or a terminal: C1 controls, the Unicode line ends
# and what no strict decoder can return.
_NON_ASCII = r"\u00a0-\u2027\u202a-\ud7ff\ue000-\U0010ffff"
_ATEXT = r"!#$%&'*+\-/0-9=?A-Z^_`a-z{|}~"
# The underscore is no Let-dig, but DNS has it and living senders use it in host names.
_LET_DIG = r"0-9A-Za-z_"


def _dot_string(atext: str) -> str:
    return rf"[{atext}]++(?:\.[{atext}]++)*"


def _domain(let_dig: str) -> str:
    sub_domain = rf"[{let_dig}]++(?:-++[{let_dig}]++)*"
    return rf"{sub_domain}(?:\.{sub_domain})*"


# What nearly every address is; whatever is not matched, or is long, is left to the whole grammar.
_COMMON_MAILBOX = re.compile(rf"({_dot_string(_ATEXT)})@({_domain(_LET_DIG)})")
_COMMON_PATH = re.compile(rf"<{_COMMON_MAILBOX.pattern}>(?: |\Z)")
_POSTMASTER = re.compile(r"(?:<(postmaster)>|(postmaster))(?: |\Z)", re.IGNORECASE | re.ASCII)
_COMMON_DOMAIN = re.compile(_domain(_LET_DIG))

_DOT_STRING = re.compile(_dot_string(_ATEXT + _NON_ASCII))
_DOTS_ANYWHERE = re.compile(rf"[.{_ATEXT}{_NON_ASCII}]++")
_QUOTED_STRING = re.compile(rf'"((?:[ !#-\[\]-~{_NON_ASCII}]|\\[ -~])*)"')
_QUOTED_PAIR = re.compile(r"\\(.)")
_MUST_BE_QUOTED = re.compile(r'["\\]')
_DOMAIN = re.compile(_domain(_LET_DIG + _NON_ASCII))
_ADDRESS_LITERAL = re.compile(r"\[([!-Z^-~]*)\]")
_IPV4 = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})")
_ESMTP_PARAM = re.compile(rf"([0-9A-Za-z][0-9A-Za-z\-]*)(?:=([!-<>-~{_NON_ASCII}]+))?")  # §4.1.2


class Mailbox(NamedTuple):
    """What a path means, its spelling removed: `"j.doe"@[192.000.002.001]` is `j.doe` at `[192.0.2.1]`.

    The local-part is without quotes and in its original case. The domain is as it was sent, or a
    normalised address literal; it is empty only in the bare `postmaster` of RFC 5321 §4.5.1, as it was said.
    """

    local_part: str
    domain: str

    def __str__(self) -> str:
        """The shortest spelling: quotes only where the grammar needs them (RFC 5321 §4.1.2)."""
        return _spelt(self.local_part, self.domain)


@lru_cache(maxsize=1024)  # one message has its paths spelt eight times: trace fields, log line, event
def _spelt(local_part: str, domain: str) -> str:
    if not _DOT_STRING.fullmatch(local_part):
        local_part = '"' + _MUST_BE_QUOTED.sub(r"\\\g<0>", local_part) + '"'
    return f"{local_part}@{domain}" if domain else local_part


# -- paths ---------------------------------------------------------------------------------------


def parse_mailbox(text: str) -> Mailbox:
    """The Mailbox of RFC 5321 §4.1.2 that the whole text is, no angle brackets; BadAddress if it is none."""
    if (match := _COMMON_MAILBOX.fullmatch(text)) and len(text) <= MAX_LABEL_OCTETS:
        return Mailbox(*match.groups())
    return _parse_whole(text, _RECIPIENTS)


def parse_sender(text: str) -> Mailbox:
    """As `parse_mailbox`, and held to as little as `parse_reverse_path`."""
    return _parse_whole(text, _SENDERS)


def _parse_whole(text: str, local_parts: _LocalParts) -> Mailbox:
    mailbox, end = _read_mailbox(text, 0, local_parts)
    if end != len(text):
        raise BadAddress("There is something after the end of the address.")
    _check_path_length(f"<{text}>")
    return mailbox


def parse_reverse_path(text: str) -> tuple[Mailbox | None, str]:
    """The Reverse-path at the beginning, None for `<>` (RFC 5321 §4.5.5), and what follows it and a space.

    Nobody is looked up by it, so it is held to less: lists and forwarders write whole addresses into their
    local-parts (RFC 5321 §4.5.3.1 asks for no limit where that can be), and some providers gave
    out `taro..yamada.`, which is `"taro..yamada."` by the grammar.
    """
    if text == "<>" or text.startswith("<> "):
        return None, text[3:]
    return _parse_path(text, _SENDERS)


def parse_forward_path(text: str) -> tuple[Mailbox, str]:
    """The Forward-path at the beginning, and what follows it and a space.

    `<postmaster>` may stand without a domain, in any case (RFC 5321 §4.1.1.3), and so without brackets.
    A source route is checked and ignored, as RFC 5321 appendix C asks.
    """
    if match := _POSTMASTER.match(text):
        return Mailbox(match[1] or match[2], ""), text[match.end() :]
    return _parse_path(text, _RECIPIENTS)


class _LocalParts(NamedTuple):
    """What is taken as a local-part."""

    unquoted: re.Pattern[str]
    max_octets: int


_RECIPIENTS = _LocalParts(_DOT_STRING, MAX_LOCAL_PART_OCTETS)
_SENDERS = _LocalParts(_DOTS_ANYWHERE, MAX_PATH_OCTETS)


def _parse_path(text: str, local_parts: _LocalParts) -> tuple[Mailbox, str]:
    if match := _COMMON_PATH.match(text):
        local_part, domain = match.groups()
        if len(local_part) <= MAX_LOCAL_PART_OCTETS and len(domain) <= MAX_LABEL_OCTETS:
            return Mailbox(local_part, domain), text[match.end() :]
    return _parse_any_path(text, local_parts)


def _parse_any_path(text: str, local_parts: _LocalParts) -> tuple[Mailbox, str]:
    if not text.startswith("<"):
        return _parse_bare_path(text, local_parts)
    mailbox, end = _read_mailbox(text, _skip_source_route(text, 1), local_parts)
    end = _skip_root(text, end)
    if not text.startswith(">", end):
        raise BadAddress("The address does not end where its angle bracket should close.")
    end += 1
    if text[end : end + 1] not in ("", " "):
        raise BadAddress("There is something directly after the closing angle bracket.")
    _check_path_length(text[:end])
    return mailbox, text[end + 1 :]


def _parse_bare_path(text: str, local_parts: _LocalParts) -> tuple[Mailbox, str]:
    """A Mailbox without brackets, as scanners and printers send it; it has no blank, so ends at the first."""
    path, _, rest = text.partition(" ")
    mailbox, end = _read_mailbox(path, 0, local_parts)
    if _skip_root(path, end) != len(path):
        raise BadAddress("There is something after the end of an address without angle brackets.")
    _check_path_length(f"<{path}>")
    return mailbox, rest


def _skip_root(text: str, end: int) -> int:
    """Where a path goes on behind its domain and a final dot, which is no part of it (RFC 5321 §2.3.5)."""
    return end + 1 if text.startswith(".", end) and text[end - 1] != "]" else end


def _skip_source_route(text: str, start: int) -> int:
    """Where the Mailbox begins behind an A-d-l, which is only checked (RFC 5321 §4.1.1.3)."""
    if not text.startswith("@", start):
        return start
    while text.startswith("@", start):
        _, end = _read_domain(text, start + 1)
        if text.startswith(":", end):
            return end + 1
        if not text.startswith(",@", end):
            break
        start = end + 1
    raise BadAddress("The source route is not a list of @domains that ends in a colon.")


def _read_mailbox(text: str, start: int, local_parts: _LocalParts) -> tuple[Mailbox, int]:
    local_part, end = _read_local_part(text, start, local_parts)
    if not text.startswith("@", end):
        raise BadAddress(
            "The local-part is not followed by @ and a domain, or holds a character that needs quotes."
        )
    domain, end = _read_domain(text, end + 1)
    return Mailbox(local_part, domain), end


def _read_local_part(text: str, start: int, local_parts: _LocalParts) -> tuple[str, int]:
    if match := local_parts.unquoted.match(text, start):
        local_part = match[0]
    elif match := _QUOTED_STRING.match(text, start):
        local_part = _QUOTED_PAIR.sub(r"\1", match[1])
    else:
        raise BadAddress("The local-part is neither a dot-string nor a quoted string.")
    if not local_part:
        # The grammar allows `""`, but nobody has this name: it is how a catch-all is stored.
        raise BadAddress("The local-part is empty.")
    if len(local_part.encode()) > local_parts.max_octets:
        raise BadAddress(f"The local-part is longer than {local_parts.max_octets} octets.")
    return local_part, match.end()


def _read_domain(text: str, start: int) -> tuple[str, int]:
    if match := _DOMAIN.match(text, start):
        fold_domain(match[0])
        return match[0], match.end()
    if match := _ADDRESS_LITERAL.match(text, start):
        return _normal_literal(match[1]), match.end()
    raise BadAddress("The domain is neither a domain name nor an address literal.")


def _check_path_length(path: str) -> None:
    if len(path.encode()) > MAX_PATH_OCTETS:
        raise BadAddress(f"The path is longer than {MAX_PATH_OCTETS} octets.")


def _normal_literal(content: str) -> str:
    """The address literal with this content in its one spelling (RFC 5321 §4.1.3).

    No tag but `IPv6` has ever been registered, so a General-address-literal is refused.
    """
    if match := _IPV4.fullmatch(content):
        numbers = [int(number) for number in match.groups()]
        if max(numbers) <= 255:
            return "[{}.{}.{}.{}]".format(*numbers)
    elif content[:5].lower() == "ipv6:":
        try:
            packed = socket.inet_pton(socket.AF_INET6, content[5:])
        except OSError as error:
            raise BadAddress("The address literal is not an IPv6 address.") from error
        return f"[IPv6:{socket.inet_ntop(socket.AF_INET6, packed)}]"
    raise BadAddress("The address literal is not an IPv4 or IPv6 address.")


# -- parameters ----------------------------------------------------------------------------------


def parse_parameters(text: str) -> dict[str, str | None]:
    """Mail-parameters or Rcpt-parameters of RFC 5321 §4.1.2, by upper-case keyword.

    BadParameter where the syntax is wrong or a keyword comes twice. More than one space between two
    parameters, or after the last, is let pass: living clients do it.
    """
    parameters: dict[str, str | None] = {}
    for parameter in text.split(" "):
        if not parameter:
            continue
        match = _ESMTP_PARAM.fullmatch(parameter)
        if not match:
            raise BadParameter("A parameter is not of the form KEYWORD or KEYWORD=value.")
        keyword = match[1].upper()
        if keyword in parameters:
            raise BadParameter(f"The parameter {keyword} is given twice.")
        parameters[keyword] = match[2]
    return parameters


# -- equality ------------------------------------------------------------------------------------


def fold_local_part(local_part: str) -> str:
    """The key under which a local-part is looked up: any case and any Unicode form means the same account.

    RFC 5321 §2.4 lets only the host of a mailbox decide on case; RFC 6532 §3.1 asks for NFC.
    """
    if local_part.isascii():
        return local_part.lower()
    normal = unicodedata.normalize("NFC", local_part)
    return unicodedata.normalize("NFC", normal.casefold())


def fold_domain(domain: str) -> str:
    """The key under which a domain is looked up: A-labels (RFC 5890 §2.3.2.1), lower case, no final dot.

    An address literal is its own key in its one spelling. BadAddress when it can be neither.
    """
    if len(domain) <= MAX_LABEL_OCTETS and _COMMON_DOMAIN.fullmatch(domain):
        return domain.lower()
    if domain.startswith("["):
        return _fold_literal(domain)
    if len(domain.encode(errors="replace")) > MAX_DOMAIN_OCTETS + 1:
        raise BadAddress(f"The domain is longer than {MAX_DOMAIN_OCTETS} octets.")
    a_labels = domain.removesuffix(".") if domain.isascii() else _a_labels(domain)
    if not _COMMON_DOMAIN.fullmatch(a_labels):
        raise BadAddress("The domain is not a domain name.")
    if len(a_labels) > MAX_DOMAIN_OCTETS:
        raise BadAddress(f"The domain is longer than {MAX_DOMAIN_OCTETS} octets.")
    if any(len(label) > MAX_LABEL_OCTETS for label in a_labels.split(".")):
        raise BadAddress(f"A label of the domain is longer than {MAX_LABEL_OCTETS} octets.")
    return a_labels.lower()


def domain_key(written: str) -> str:
    """As `fold_domain`, for what a person wrote: the refusal repeats it."""
    try:
        return fold_domain(written)
    except BadAddress as error:
        raise BadAddress(f"{written!r} is no domain like example.org: {reason(error)}") from error


def ends_with_number(domain: str) -> bool:
    """Whether the last label is a number: an IP address ends so, and no top-level domain (RFC 3696 §2)."""
    return domain.rpartition(".")[2].isdigit()


def reason(error: BadAddress) -> str:
    """Why something is no address, to stand behind a colon."""
    text = str(error).rstrip(".")
    return f"{text[:1].lower()}{text[1:]}"


def _fold_literal(domain: str) -> str:
    match = _ADDRESS_LITERAL.fullmatch(domain)
    if not match:
        raise BadAddress("The address literal is not closed, or holds a character that it may not.")
    return _normal_literal(match[1]).lower()


def _a_labels(domain: str) -> str:
    import idna  # its tables are large, and most servers never meet a U-label

    try:
        return idna.encode(domain, uts46=True, transitional=False).decode("ascii").removesuffix(".")
    except UnicodeError as error:  # the base class of idna.IDNAError
        raise BadAddress("The domain is not an internationalised domain name (RFC 5890).") from error


def is_helo_name(text: str, *, utf8: bool = False) -> bool:
    """Whether HELO or EHLO may name this: a Domain or an address literal (RFC 5321 §4.1.1.1).

    RFC 6531 §3.7.1 wants A-labels here; U-labels pass only where the caller says `utf8`.
    """
    if len(text) <= MAX_LABEL_OCTETS and _COMMON_DOMAIN.fullmatch(text):
        return True
    if not utf8 and not text.isascii():
        return False
    try:
        _, end = _read_domain(text, 0)
    except BadAddress:
        return False
    return end == len(text)
