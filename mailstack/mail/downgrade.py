"""One header field in UTF-8 (RFC 6532) as a client can read it that knows only ASCII (RFC 6858).

Of the two ways to downgrade, this is the simple one: what can be said in ASCII is said with the
means of MIME, an address that cannot becomes one that leads nowhere and shows the real one as its
name, and what is left is dropped. RFC 6857 would keep every octet in `Downgraded-` fields, which
no client shows. Two things go beyond RFC 6858, since they lose less: an address whose domain alone
is not ASCII gets that domain's A-labels, and parameters are encoded (RFC 2231), so that
attachments keep their names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from email.header import Header, decode_header
from email.message import Message
from email.utils import quote
from typing import Any, Final
from urllib.parse import quote as percent_encoded

from mailstack.errors import BadAddress
from mailstack.mail import address_list
from mailstack.mail.address import Mailbox, fold_domain

NOWHERE: Final = "invalid@internationalized-address.invalid"
"""The address that stands for one that ASCII cannot say (RFC 6858 §2.1)."""

_LONGEST_LIST: Final = 16 * 1024
"""Octets of an address field that is still taken apart; writing a longer one takes too long."""

_NEW_LINE: Final = "\r\n "
_PIECE: Final = 60  # characters of a parameter's value on one line
_FOLD: Final = re.compile(r"\r\n(?=[ \t])")
# A regular expression holds the interpreter while it searches: what a run of blanks or of `<` begins
# with must not be tried at each of them, nor what a quotation mark behind each `<` opens: so there is no
# backslash outside of a quoted-string, inside of which a `>` may stand (RFC 5321 §4.1.2).
_IN_PATH: Final = r'(?:"(?:[^"\\\r\n]|\\[^\r\n])*+"|[^<>"\\\r\n])'
_FOR: Final = re.compile(rf"(?:\r\n|(?<![ \t]))[ \t]++for[ \t]++<{_IN_PATH}*+>", re.IGNORECASE)
_PATH: Final = re.compile(rf"<?({_IN_PATH}*?)(?:@([^@<>]*))?>?")
_ENCODED_WORD: Final = re.compile(r"=\?[^?\s]+\?[bq]\?[^?\s]*\?=", re.IGNORECASE)
_BETWEEN_ENCODED_WORDS: Final = re.compile(r"(\?=)\s+(?==\?[^?\s]+\?[bq]\?)", re.IGNORECASE)
_ATOMS: Final = re.compile(r"[\w !#$%&'*+/=?^`{|}~-]*", re.ASCII)


def downgraded(field: bytes) -> bytes:
    """A whole field, folds and line end included, in ASCII; empty where it has to go.

    One that is ASCII already stays as it is, octet for octet, and so does one that is not UTF-8:
    that is no internationalized header but an old mistake, which clients know better than we do.
    """
    if field.isascii():
        return field
    try:
        text = field.decode("utf-8")
    except UnicodeDecodeError:
        return field
    name, _, value = text.partition(":")
    try:
        said = _KINDS.get(name.rstrip(" \t").lower(), _unstructured)(name, value.removesuffix("\r\n"))
        line = f"{name}:{said}\r\n" if said else ""
        return line.encode("ascii")
    except Exception:  # Python's parser gives up on some broken fields with errors of all kinds
        return b""


def _unstructured(name: str, value: str) -> str:
    """Free text, as encoded-words (RFC 2047)."""
    text = _BETWEEN_ENCODED_WORDS.sub(r"\1", _FOLD.sub("", value)).strip()
    text = _ENCODED_WORD.sub(lambda word: _decoded(word[0]), text)
    return " " + _encoded(text, first_line_octets=76 - len(name) - 2)


def _addresses(_name: str, value: str) -> str:
    """Mailboxes and groups (RFC 5322 §3.4), one on a line."""
    if len(value) > _LONGEST_LIST:
        return ""
    said = ",\r\n ".join(map(_group, address_list.parse(_FOLD.sub("", value), _decoded)))
    return said and f" {said}"


def _group(group: address_list.Group) -> str:
    members = list(map(_mailbox, group.members))
    if not group.name:
        return ",\r\n ".join(members)
    return f"{_phrase(group.name)}:{','.join(f'{_NEW_LINE}{each}' for each in members)};"


def _mailbox(listed: address_list.Listed) -> str:
    name, local_part, domain = listed
    if local_part and local_part.isascii() and (ascii_domain := _in_ascii(domain)):
        real = str(Mailbox(local_part, ascii_domain))
        return f"{_phrase(name)} <{real}>" if name else real
    real = f"{name} <{local_part}@{domain}>" if domain else f"{name} {local_part}"
    return f"{_phrase(real.strip())}\r\n <{NOWHERE}>"


def _phrase(text: str) -> str:
    if not text.isascii():
        return _encoded(text)
    return text if _ATOMS.fullmatch(text) else f'"{quote(text)}"'


def _path(_name: str, value: str) -> str:
    """A Path of RFC 5321 §4.1.2 (`Return-Path:`), which has no room for a name."""
    return f" <{_reachable(value) or NOWHERE}>"


def _delivered_to(_name: str, value: str) -> str:
    """RFC 9228 knows no name either, and an address that leads nowhere would be a lie here."""
    address = _reachable(value)
    return f" {address}" if address else ""


def _reachable(path: str) -> str | None:
    """The address of a path in ASCII, where that is still the same address."""
    match = _PATH.fullmatch(_FOLD.sub("", path).strip())
    domain = _in_ascii(match[2]) if match and match[1].isascii() else None
    return f"{match[1]}@{domain}" if match and domain else None


def _in_ascii(domain: str | None) -> str | None:
    try:
        return fold_domain(domain) if domain else None
    except BadAddress:
        return None


def _received(_name: str, value: str) -> str:
    """A trace without its recipient; the hop has to show, so what ASCII cannot say even then is a `?`."""
    return _FOR.sub("", value).encode("ascii", "replace").decode()


def _parameters(name: str, value: str) -> str:
    """A MIME value with its parameters (RFC 2045 §5.1), those in RFC 2231's encoding that need it."""
    message = Message()
    message[name] = _FOLD.sub("", value)
    found: list[tuple[str, Any]] = message.get_params([], header=name)
    lines = [found[0][0]]
    for key, said in found[1:]:
        # One that was encoded already comes as charset, language and text.
        charset, _, text = said if isinstance(said, tuple) else (None, None, said)
        if charset:
            text = text.encode("latin-1").decode(charset)
        lines += _parameter(key, text)
    return " " + ";\r\n ".join(lines)


def _parameter(key: str, text: str) -> Iterator[str]:
    if text.isascii():
        yield f'{key}="{quote(text)}"'
        return
    pieces: list[str] = ["utf-8''"]
    for character in text:
        encoded = percent_encoded(character, safe="")
        if len(pieces[-1]) + len(encoded) > _PIECE:
            pieces.append("")
        pieces[-1] += encoded
    if len(pieces) == 1:
        yield f"{key}*={pieces[0]}"
    else:
        yield from (f"{key}*{number}*={piece}" for number, piece in enumerate(pieces))


def _dropped(_name: str, _value: str) -> str:
    return ""


def _encoded(text: str, *, first_line_octets: int = 66) -> str:
    header = Header(text, charset="utf-8", header_name="x" * max(0, 74 - first_line_octets))
    return header.encode(linesep="\r\n")


def _decoded(word: str) -> str:
    """What an encoded-word says, or the word itself where it is broken."""
    try:
        ((text, charset),) = decode_header(word)
        said = text.decode(charset or "ascii") if isinstance(text, bytes) else text
        said.encode()  # UTF-7, for one, can say what is no character
    except Exception:  # a charset names any of Python's codecs, and each has errors of its own
        return word
    return said


# fmt: off
_ADDRESSES: Final = (
    "from", "sender", "reply-to", "to", "cc", "bcc", "resent-from", "resent-sender", "resent-reply-to",
    "resent-to", "resent-cc", "resent-bcc", "disposition-notification-to", "mail-followup-to",
    "mail-reply-to", "errors-to",
)
# Their values are read by programs, which would not take an encoded-word for anything.
_TOKENS: Final = (
    "date", "message-id", "in-reply-to", "references", "resent-date", "resent-message-id", "mime-version",
    "content-id", "content-transfer-encoding", "content-location", "content-md5", "content-language",
    "dkim-signature", "authentication-results", "received-spf", "arc-seal", "arc-message-signature",
    "arc-authentication-results", "list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post",
    "list-subscribe", "list-post", "list-owner", "list-archive", "auto-submitted", "autocrypt",
)
# fmt: on

_KINDS: Final[dict[str, Callable[[str, str], str]]] = {
    **dict.fromkeys(_ADDRESSES, _addresses),
    **dict.fromkeys(_TOKENS, _dropped),
    "return-path": _path,
    "delivered-to": _delivered_to,
    "received": _received,
    "content-type": _parameters,
    "content-disposition": _parameters,
}
