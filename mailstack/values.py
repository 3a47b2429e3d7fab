"""What a person writes in a setting or an option, such as `50MiB` or `[::]:25`, into what the program uses.

Every parser takes what TOML or the environment gives and raises ValueError with a reason that can
stand behind "file: key:".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

_UNITS = {"b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_UNITS |= {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
DAY_SECONDS = 86_400
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": DAY_SECONDS, "w": 7 * DAY_SECONDS}
_MOST = (1 << 63) - 1  # what a database can count to
_LONGEST_SECONDS = 36500 * DAY_SECONDS  # a time so long ago is still one that a database and a calendar have
_SIZE = re.compile(r"(\d{1,19})(\.\d{1,6})? ?([a-z]*)", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"(?:\d{1,9} ?[smhdw] ?)+", re.IGNORECASE | re.ASCII)
_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$)(?:{_LABEL}\.)*{_LABEL}", re.IGNORECASE | re.ASCII)
_LISTEN = re.compile(
    r"(?:\[([0-9a-f:.]+(?:%[a-z0-9_.-]+)?)\]|([^\[\]:/ ]+)):(\d{1,5})", re.IGNORECASE | re.ASCII
)
_UNIX_PATH_OCTETS = 107  # sockaddr_un holds 108, the last of them NUL


class TcpAddress(NamedTuple):
    """A host (name, IPv4, or IPv6 without its brackets) and a port to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        import ipaddress  # which most commands do without

        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name
            return False

    @property
    def from_here(self) -> TcpAddress:
        """Where to connect to on this machine: what listens everywhere listens on loopback, too."""
        # [::] listens for IPv4 as well; the machine need not have IPv6 on its loopback.
        everywhere = self.host in ("0.0.0.0", "::")
        return TcpAddress("127.0.0.1", self.port) if everywhere else self


class UnixAddress(NamedTuple):
    """The path of a unix socket to listen on."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


Number = TypeVar("Number", int, int | None)

Listen = TcpAddress | UnixAddress


def size(value: object) -> int:
    """Octets: `50MiB` (powers of two), `50MB` (powers of ten) or a plain number."""
    written = str(value) if _is_number(value) else value
    found = _SIZE.fullmatch(written.strip()) if isinstance(written, str) else None
    unit = _UNITS.get(found[3].lower()) if found else None
    if found is None or unit is None:
        raise ValueError(f'{shown(value)} is not a size; write it like "50MiB" or "2GiB"')
    return _countable(value, int(found[1]) * unit + int(float(found[2] or 0) * unit))


def duration(value: object) -> int:
    """Seconds: `90s`, `10m`, `1h30m`, `30d`, `2w` or a plain number of seconds."""
    written = str(value) if _is_number(value) else value
    if isinstance(written, str) and written.strip().isdecimal() and written.isascii():
        seconds = int(written)
    elif isinstance(written, str) and _DURATION.fullmatch(written.strip()):
        parts = re.findall(r"(\d+) ?([a-zA-Z])", written)
        seconds = sum(int(number) * _SECONDS[unit.lower()] for number, unit in parts)
    else:
        raise ValueError(f'{shown(value)} is not a duration; write it like "90s", "10m" or "30d"')
    if seconds > _LONGEST_SECONDS:
        raise ValueError(f"{shown(value)} is too long: {written_duration(_LONGEST_SECONDS)} is the most")
    return seconds


def age(value: object) -> int:
    """As `duration`, for what is thrown away after it: nobody who writes 90 or 6m means that little."""
    seconds = duration(value)
    if str(value).strip().isdecimal():
        raise ValueError(f'{shown(value)} has no unit; write it like "90d" or "12h"')
    if 0 < seconds < _SECONDS["h"]:
        raise ValueError(f'{shown(value)} is less than an hour; write it like "90d" or "12h"')
    return seconds


def lifetime(value: object) -> int | None:
    """As `age`, or `forever`, which is None."""
    return None if value == "forever" else age(value)


def quota(value: object) -> int:
    """As `size`, for what a maildrop may hold: nobody who writes 5 means five octets."""
    octets = size(value)
    if 0 < octets < _UNITS["mib"] and str(value).strip().isdecimal():
        raise ValueError(f'{shown(value)} means {octets} octets; write it with a unit, like "5GiB"')
    return octets


def limit(value: object) -> int | None:
    """As `count`, or `none`, which is None."""
    return None if value == "none" else count(value)


def count(value: object) -> int:
    """A whole number that is not negative."""
    written = str(value) if _is_number(value) else value
    if not isinstance(written, str) or not (written.isascii() and written.isdecimal()):
        raise ValueError(f"{shown(value)} is not a whole number")
    return _countable(value, int(written))


def flag(value: object) -> bool:
    """True or false; from the environment as a word."""
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is neither true nor false")
    return value


def text(value: object) -> str:
    """A text that is not empty and can be printed."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"{shown(value)} is not a text of printable characters in quotes")
    return value.strip()


def path(value: object) -> Path:
    """A file or folder."""
    return Path(text(value))


def host_name(value: object) -> str:
    """A host name of letters, digits, hyphens and dots."""
    name = text(value).removesuffix(".")
    if not _HOST_NAME.fullmatch(name):
        raise ValueError(f'{shown(value)} is no host name; write it like "mail.example.org"')
    return name


def domain(value: object) -> str:
    """A domain, as far as can be told without the address grammar."""
    if "@" in (name := text(value)) or " " in name:
        raise ValueError(f'{shown(value)} is no domain; write it like "example.org"')
    return name


def address(value: object) -> str:
    """An address, as far as can be told without the address grammar."""
    local_part, _, domain_name = text(value).rpartition("@")
    if not local_part or not domain_name:
        raise ValueError(f'{shown(value)} is no address; write it like "admin@example.org"')
    return text(value)


def database_url(value: object) -> str:
    """The URL of a database that the store can use."""
    if not (url := text(value)).startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
        raise ValueError('it has to begin with "sqlite:///" or "postgresql://"')
    return url


def listen(value: object) -> Listen:
    """`127.0.0.1:2525`, `[::]:25`, `localhost:110` or `unix:/path`."""
    if isinstance(value, str) and value.startswith("unix:"):
        return _unix_address(value)
    found = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f'{shown(value)} is no address to listen on; write "127.0.0.1:2525", "[::]:25" or "unix:/path"'
        )
    if int(found[3]) > 65535:
        raise ValueError(f"{shown(value)}: a port is at most 65535")
    return TcpAddress(found[1] or found[2], int(found[3]))


def listeners(value: object) -> tuple[Listen, ...]:
    """A list of addresses to listen on; from the environment with commas between them."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list):
        raise ValueError(f'{shown(value)} is not a list; write it like ["127.0.0.1:2525"]')
    addresses = tuple(listen(item) for item in value)
    if len(set(addresses)) < len(addresses):
        raise ValueError("the same address is there twice")
    return addresses


def one_of(*choices: str) -> Callable[[object], str]:
    """A parser that takes one of `choices` and nothing else."""

    def chosen(value: object) -> str:
        if value not in choices:
            raise ValueError(f"{shown(value)} is none of {', '.join(map(shown, choices))}")
        return str(value)

    return chosen


def at_least(bound: int, parse: Callable[[object], Number], why: str) -> Callable[[object], Number]:
    """A parser that takes what `parse` takes and refuses less than `bound`, saying `why`."""

    def bounded(value: object) -> Number:
        if (parsed := parse(value)) is not None and parsed < bound:
            raise ValueError(f"{shown(value)} is too little: {why}")
        return parsed

    return bounded


def shown(value: object) -> str:
    """A value as it stands in the settings file, for messages."""
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def written_size(octets: int) -> str:
    """The shortest size that means exactly `octets`: 52428800 is `50MiB`."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if octets and octets % unit == 0:
            return f"{octets // unit}{name}"
    return str(octets)


def rounded_size(octets: int) -> str:
    """A size for people: three digits are enough."""
    value = float(octets)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def written_duration(seconds: int) -> str:
    """The shortest duration that means exactly `seconds`: 600 is `10m`."""
    for name in "dhm":
        if seconds and seconds % _SECONDS[name] == 0:
            return f"{seconds // _SECONDS[name]}{name}"
    return f"{seconds}s"


def _countable(value: object, number: int) -> int:
    if number > _MOST:
        raise ValueError(f"{shown(value)} is too much: {_MOST} is the most")
    return number


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _unix_address(value: str) -> UnixAddress:
    place = Path(value.removeprefix("unix:"))
    if not place.is_absolute():
        raise ValueError(f"{shown(value)}: the path of a unix socket has to begin with /")
    if len(os.fsencode(place)) > _UNIX_PATH_OCTETS:
        raise ValueError(f"{shown(value)}: the path of a unix socket has at most {_UNIX_PATH_OCTETS} octets")
    return UnixAddress(place)
