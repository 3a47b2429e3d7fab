"""The addresses of a header field (RFC 5322 §3.4), with the obsolete forms, and as people break them.

What is no address is taken for what it most likely is, and no text but comments is lost. The email
package takes such fields differently from one release of Python to the next, or gives up on them;
what is stored once must not depend on that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, NamedTuple


class Listed(NamedTuple):
    """A mailbox as a field has it: decoded, without quotes and comments; each part may be empty."""

    name: str
    local_part: str
    domain: str


class Group(NamedTuple):
    """Mailboxes under a name, which may be none; or, with no name, one that stands for itself."""

    name: str
    members: list[Listed]


class _Kind(Enum):
    BLANK = "blank"
    ENCODED = "encoded"  # an encoded-word of RFC 2047
    SPECIAL = "special"
    TEXT = "text"


_Token = tuple[_Kind, str]

_AT: Final = (_Kind.SPECIAL, "@")
_COLON: Final = (_Kind.SPECIAL, ":")

# A regular expression holds the interpreter while it searches: each of these looks at an octet once.
_TOKEN: Final = re.compile(
    r"""
    (?P<blank>[ \t\r\n]++)
    | (?P<encoded>=\?[^?\s]++\?[bq]\?[^?\s]*+\?=)
    | "(?P<quoted>(?:[^"\\]|\\.)*+)(?:"|\\?\Z)
    | (?P<literal>\[[^][\\\s]*+\])
    | (?P<special>[,:;<>@(])
    | (?P<atom>[^ \t\r\n,:;<>@("]++|.)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_IN_COMMENT: Final = re.compile(r"\\.|[()]", re.DOTALL)
_QUOTED_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]+")


def parse(value: str, decoded: Callable[[str], str]) -> list[Group]:
    """The groups of an unfolded field's value; `decoded` tells what an encoded-word stands for."""
    parser = _Parser(decoded)
    for token in _tokens(value):
        parser.take(token)
    parser.end_group()
    return parser.groups


def _tokens(value: str) -> Iterator[_Token]:
    at = 0
    while match := _TOKEN.match(value, at):
        at = match.end()
        found = match.lastgroup
        if found == "blank":
            yield _Kind.BLANK, " "
        elif found == "encoded":
            yield _Kind.ENCODED, match[0]
        elif found == "quoted":
            yield _Kind.TEXT, _QUOTED_PAIR.sub(r"\1", match["quoted"])
        elif match[0] == "(":
            at = _end_of_comment(value, at)
            yield _Kind.BLANK, " "
        else:
            yield _Kind.SPECIAL if found == "special" else _Kind.TEXT, match[0]


def _end_of_comment(value: str, at: int) -> int:
    """Where a comment ends that has begun; one that nobody closed does so with the field."""
    depth = 1
    for match in _IN_COMMENT.finditer(value, at):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    return len(value)


class _Parser:
    def __init__(self, decoded: Callable[[str], str]) -> None:
        self.groups: list[Group] = []
        self._decoded = decoded
        self._group: Group | None = None
        self._words: list[_Token] = []
        self._angle: list[_Token] | None = None  # what is between < and >
        self._in_angle = False

    def take(self, token: _Token) -> None:
        kind, text = token
        if kind is not _Kind.SPECIAL:
            self._into().append(token)
        elif text == "," and not self._is_route():
            self._end_mailbox()
        elif text == ";":
            self.end_group()
        elif text == ":" and self._group is None and self._angle is None and self._words:
            self._group = Group(self._phrase(self._words), [])
            self._words = []
        elif text == "<" and self._angle is None:
            self._angle, self._in_angle = [], True
        elif text == ">" and self._in_angle:
            self._in_angle = False
        else:
            self._into().append(token)

    def end_group(self) -> None:
        self._end_mailbox()
        if self._group is not None:
            self.groups.append(self._group)
            self._group = None

    def _into(self) -> list[_Token]:
        return self._angle if self._in_angle and self._angle is not None else self._words

    def _is_route(self) -> bool:
        """Of the obsolete `<@one,@two:jo@three>`, where a comma ends nothing."""
        return self._in_angle and self._into()[:1] == [_AT]

    def _end_mailbox(self) -> None:
        words, angle = self._words, self._angle
        self._words, self._angle, self._in_angle = [], None, False
        if angle is None:
            words, angle = _without_address(words)
        elif angle[:1] == [_AT] and _COLON in angle:
            angle = angle[_last(angle, _COLON) + 1 :]
        mailbox = Listed(self._phrase(words), *_address(angle))
        if any(mailbox):
            if self._group is None:
                self.groups.append(Group("", [mailbox]))
            else:
                self._group.members.append(mailbox)

    def _phrase(self, words: list[_Token]) -> str:
        texts: list[str] = []
        for number, (kind, text) in enumerate(words):
            if kind is _Kind.ENCODED:
                texts.append(_CONTROLS.sub(" ", self._decoded(text)))
            elif kind is not _Kind.BLANK or not _is_between_encoded(words, number):  # RFC 2047 §6.2
                texts.append(text)
        return " ".join("".join(texts).split())


def _is_between_encoded(words: list[_Token], number: int) -> bool:
    return (
        0 < number < len(words) - 1
        and words[number - 1][0] is _Kind.ENCODED
        and words[number + 1][0] is _Kind.ENCODED
    )


def _without_address(words: list[_Token]) -> tuple[list[_Token], list[_Token]]:
    """A mailbox without angle brackets: what is beside the address, and the address."""
    words = [word for number, word in enumerate(words) if not _is_beside_at(words, number)]
    if _AT not in words:
        return words, []
    begin = end = _last(words, _AT)
    while begin > 0 and words[begin - 1][0] is not _Kind.BLANK:
        begin -= 1
    while end < len(words) and words[end][0] is not _Kind.BLANK:
        end += 1
    return [*words[:begin], *words[end:]], words[begin:end]


def _is_beside_at(words: list[_Token], number: int) -> bool:
    """Whether this is a blank that the obsolete syntax allows next to the @."""
    return words[number][0] is _Kind.BLANK and _AT in words[max(0, number - 1) : number + 2]


def _address(tokens: list[_Token]) -> tuple[str, str]:
    """An addr-spec's local-part and domain; with no @ in it all is local-part."""
    tokens = [token for token in tokens if token[0] is not _Kind.BLANK]
    if _AT not in tokens:
        return _text(tokens), ""
    at = _last(tokens, _AT)
    return _text(tokens[:at]), _text(tokens[at + 1 :])


def _last(tokens: list[_Token], wanted: _Token) -> int:
    return len(tokens) - 1 - tokens[::-1].index(wanted)


def _text(tokens: list[_Token]) -> str:
    return "".join(text for _, text in tokens)
