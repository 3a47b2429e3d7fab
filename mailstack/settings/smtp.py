"""What SMTP and LMTP may be told: where they listen, and what one sender may take."""

from __future__ import annotations

from dataclasses import dataclass

from mailstack import values
from mailstack.settings.field import key
from mailstack.values import Listen


@dataclass(frozen=True, slots=True)
class Smtp:
    """Mail from the network (RFC 5321)."""

    listen: tuple[Listen, ...] = key(values.listeners, ["127.0.0.1:2525"], "Addresses that take mail.")
    max_message_octets: int = key(
        values.at_least(64 << 10, values.size, "RFC 5321 section 4.5.3.1.7 asks for 64 KiB"),
        "50MiB",
        "The largest message taken, counted without our own trace fields; announced as SIZE.",
        name="max_message_size",
    )
    bare_newlines: str = key(
        values.one_of("normalise", "reject"),
        "normalise",
        "What happens to a line feed or carriage return that stands alone in a message: it becomes"
        " CRLF or a space, or the message is refused.",
    )
    over_quota: str = key(
        values.one_of("temporary", "permanent"),
        "temporary",
        "What a sender hears of a full maildrop: 452 4.2.2, and it tries again for days, or 552 5.2.2.",
    )
    greeting_delay_milliseconds: int = key(
        values.count,
        50,
        "How long a stranger waits for the greeting; who speaks before it is no mail server.",
    )
    max_connections: int = key(
        values.at_least(1, values.count, "nobody could send mail"),
        1000,
        "Connections open at the same time; one more is asked to come back later, unless another has been"
        " silent for 2 seconds and makes room.",
    )
    max_connections_per_address: int = key(
        values.at_least(1, values.count, "nobody could send mail"),
        50,
        "The same for one address; loopback addresses and unix sockets are exempt.",
    )
    max_connections_per_network: int = key(
        values.at_least(1, values.count, "nobody could send mail"),
        200,
        "The same for all addresses of one IPv4 /24 or IPv6 /64.",
    )
    max_recipients: int = key(
        values.at_least(100, values.count, "RFC 5321 section 4.5.3.1.8 asks for 100"),
        1000,
        "Recipients of one message; the sender is asked to send to the others in another transaction.",
    )
    max_header_octets: int = key(
        values.at_least(64 << 10, values.size, "mailing lists and virus scanners make long ones"),
        "256KiB",
        "The largest header of a message.",
        name="max_header_size",
    )
    max_commands: int = key(
        values.at_least(1000, values.count, "one transaction may need so many"),
        5000,
        "Commands of a session that do not lead to a message; an accepted message begins the count again.",
    )
    max_errors: int = key(
        values.at_least(1, values.count, "nobody is without fault"),
        50,
        "Commands of a session that are refused for good; an accepted message begins the count again.",
    )
    idle_seconds: float = key(
        values.at_least(10, values.duration, "a slow line needs 10 seconds"),
        "5m",
        "How long a sender may be silent, or take for one command (RFC 5321 section 4.5.3.2.7).",
        name="idle",
    )
    min_octets_per_second: int = key(
        values.size,
        64,
        "The least octets a second of a message's content, on average, once it has taken as long as `idle`.",
        name="min_rate",
    )
    max_data_seconds: float = key(
        values.at_least(600, values.duration, "RFC 5321 section 4.5.3.2.6 gives the end of DATA 10 minutes"),
        "2h",
        "How long a message's content may take in all.",
        name="max_data_time",
    )
    max_octets_in_flight: int = key(
        values.at_least(64 << 10, values.size, "one message has to fit"),
        "4GiB",
        "Octets of all messages that are being received or stored at one time; on disk, not in memory.",
        name="max_in_flight",
    )


@dataclass(frozen=True, slots=True)
class Lmtp:
    """Mail from another mail server on this machine (RFC 2033)."""

    listen: tuple[Listen, ...] = key(values.listeners, [], "Addresses that take mail by LMTP.")
