"""Typed settings: the TOML file, then the environment over it, into frozen dataclasses.

A mistake in a mail server's settings shows weeks later as lost mail, so nothing is guessed: an
unknown key, an impossible value or an unreadable file is `BadSetting` with file, key and reason,
and all that is wrong is said at once.
"""

# ruff: noqa: RUF009 -- `_key` is dataclasses.field by another name

from __future__ import annotations

import re
import socket
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from mailstack import values
from mailstack.errors import BadSetting
from mailstack.values import Listen, TcpAddress

DEFAULT_PATH = Path("/etc/mailstack/mailstack.toml")
"""Where the settings are when neither `--config` nor `MAILSTACK_CONFIG` says otherwise."""

PREFIX = "MAILSTACK_"
"""`MAILSTACK_SMTP__LISTEN` is the environment's name for `[smtp] listen`: two underscores for the dot."""

NOT_SETTINGS = frozenset({"MAILSTACK_CONFIG"})
"""Variables that have the prefix and are no settings."""


def _key(parse: Callable[[object], Any], default: Any, meaning: str, *, name: str = "") -> Any:
    """A setting: how it is read, what it is when nobody says (as TOML has it), what it means."""
    return field(
        default=None if default is None else parse(default),
        metadata={"parse": parse, "default": default, "meaning": meaning, "name": name},
    )


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate of all listeners; without one there is no STARTTLS and no STLS."""

    certificate: Path | None = _key(values.path, None, "PEM file: the certificate, then its chain.")
    private_key: Path | None = _key(values.path, None, "PEM file: the private key of the certificate.")


@dataclass(frozen=True, slots=True)
class Smtp:
    """Mail from the network (RFC 5321)."""

    listen: tuple[Listen, ...] = _key(values.listeners, ["127.0.0.1:2525"], "Addresses that take mail.")
    max_message_octets: int = _key(
        values.at_least(64 << 10, values.size, "RFC 5321 section 4.5.3.1.7 asks for 64 KiB"),
        "50MiB",
        "The largest message taken, counted without our own trace fields; announced as SIZE.",
        name="max_message_size",
    )
    bare_newlines: str = _key(
        values.one_of("normalise", "reject"),
        "normalise",
        "What happens to a line feed or carriage return that stands alone in a message: it becomes"
        " CRLF or a space, or the message is refused.",
    )
    over_quota: str = _key(
        values.one_of("temporary", "permanent"),
        "temporary",
        "What a sender hears of a full maildrop: 452 4.2.2, and it tries again for days, or 552 5.2.2.",
    )
    greeting_delay_milliseconds: int = _key(
        values.count,
        50,
        "How long a stranger waits for the greeting; who speaks before it is no mail server.",
    )
    max_connections: int = _key(
        values.at_least(1, values.count, "nobody could send mail"),
        1000,
        "Connections open at the same time; one more is asked to come back later.",
    )
    max_connections_per_address: int = _key(
        values.at_least(1, values.count, "nobody could send mail"),
        50,
        "The same for one address; loopback addresses and unix sockets are exempt.",
    )
    max_connections_per_network: int = _key(
        values.at_least(1, values.count, "nobody could send mail"),
        200,
        "The same for all addresses of one IPv4 /24 or IPv6 /64.",
    )
    max_recipients: int = _key(
        values.at_least(100, values.count, "RFC 5321 section 4.5.3.1.8 asks for 100"),
        1000,
        "Recipients of one message; the sender is asked to send to the others in another transaction.",
    )
    max_header_octets: int = _key(
        values.at_least(64 << 10, values.size, "mailing lists and virus scanners make long ones"),
        "256KiB",
        "The largest header of a message.",
        name="max_header_size",
    )
    max_commands: int = _key(
        values.at_least(1000, values.count, "one transaction may need so many"),
        5000,
        "Commands of a session that do not lead to a message; an accepted message begins the count again.",
    )
    max_errors: int = _key(
        values.at_least(1, values.count, "nobody is without fault"),
        50,
        "Commands of a session that are refused for good; an accepted message begins the count again.",
    )
    idle_seconds: float = _key(
        values.at_least(10, values.duration, "a slow line needs 10 seconds"),
        "5m",
        "How long a sender may be silent, or take for one command (RFC 5321 section 4.5.3.2.7).",
        name="idle",
    )
    min_octets_per_second: int = _key(
        values.size,
        64,
        "The least octets a second of a message's content, on average, once it has taken as long as `idle`.",
        name="min_rate",
    )
    max_data_seconds: float = _key(
        values.at_least(600, values.duration, "RFC 5321 section 4.5.3.2.6 gives the end of DATA 10 minutes"),
        "2h",
        "How long a message's content may take in all.",
        name="max_data_time",
    )
    max_octets_in_flight: int = _key(
        values.at_least(64 << 10, values.size, "one message has to fit"),
        "4GiB",
        "Octets of all messages that are being received or stored at one time; on disk, not in memory.",
        name="max_in_flight",
    )


@dataclass(frozen=True, slots=True)
class Pop3:
    """Mail to its readers (RFC 1939)."""

    listen: tuple[Listen, ...] = _key(
        values.listeners, ["127.0.0.1:1110"], "Addresses that begin in plain text; STLS switches to TLS."
    )
    tls_listen: tuple[Listen, ...] = _key(
        values.listeners, [], "Addresses that speak TLS from the first octet; they need a certificate."
    )
    allow_plaintext_login: bool = _key(
        values.flag,
        False,
        "Whether a password may cross a network without TLS; on a loopback address it always may.",
    )
    idle_seconds: int = _key(
        values.at_least(600, values.duration, "RFC 1939 section 3 asks for 10 minutes"),
        "10m",
        "How long a session may be silent after login before it is ended.",
        name="idle",
    )
    login_idle_seconds: int = _key(
        values.at_least(10, values.duration, "a slow line needs 10 seconds"),
        "1m",
        "How long a connection may be silent before login.",
        name="login_idle",
    )
    login_delay_seconds: int = _key(
        values.duration,
        "0s",
        "How long an account has to wait between two logins; announced as LOGIN-DELAY unless it is zero.",
        name="login_delay",
    )


@dataclass(frozen=True, slots=True)
class Lmtp:
    """Mail from another mail server on this machine (RFC 2033)."""

    listen: tuple[Listen, ...] = _key(values.listeners, [], "Addresses that take mail by LMTP.")


@dataclass(frozen=True, slots=True)
class Auth:
    """Logging in, by whatever protocol."""

    channel_binding: bool = _key(
        values.flag,
        False,
        "Whether SCRAM-SHA-256-PLUS is offered under TLS, with tls-server-end-point (RFC 5929).",
    )
    scram_iterations: int = _key(
        values.at_least(4096, values.count, "RFC 7677 section 4 asks for 4096"),
        16_384,
        "How much work a SCRAM key is, for whoever steals it and for a client at each login.",
    )


@dataclass(frozen=True, slots=True)
class Store:
    """Where mail is kept."""

    reserve_octets: int = _key(
        values.size,
        "64MiB",
        "Free space on the store's disk below which no more mail is taken; reading and deleting go on.",
        name="reserve",
    )


@dataclass(frozen=True, slots=True)
class Retention:
    """How long mail is kept, where neither the account nor its domain says otherwise."""

    keep_seconds: int | None = _key(
        values.lifetime, "forever", "How long after its arrival a message is kept.", name="keep"
    )
    keep_read_seconds: int | None = _key(
        values.lifetime, "forever", "How long after it was first downloaded.", name="keep_read"
    )
    keep_messages: int | None = _key(
        values.limit, "none", "How many messages of a maildrop are kept, the newest ones."
    )
    undo_seconds: int = _key(
        values.duration,
        "7d",
        "How long what housekeeping removed can be brought back; it counts for no quota.",
        name="undo",
    )
    undo_deleted_seconds: int = _key(
        values.duration,
        "0s",
        "The same for what mail programs delete; 0s removes it at once.",
        name="undo_deleted",
    )


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """Work that is done while nobody waits for it."""

    every_seconds: int = _key(
        values.at_least(10, values.duration, "it would never rest"),
        "15m",
        "How often a service with the role housekeeping keeps house.",
        name="every",
    )


@dataclass(frozen=True, slots=True)
class Log:
    """Lines on standard error."""

    level: str = _key(
        values.one_of("debug", "info", "warning", "error"),
        "info",
        "The least important lines that are written.",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings; relative paths are made absolute, beginning at the settings file's folder."""

    hostname: str = _key(values.host_name, None, "This server's name, in greetings and trace fields.")
    default_domain: str | None = _key(values.domain, None, "The domain of a login name that has none.")
    postmaster: str | None = _key(
        values.address, None, "Where mail for `postmaster` and `abuse` of every domain goes."
    )
    state_dir: Path = _key(values.path, "/var/lib/mailstack", "The folder that holds all the server keeps.")
    database_url: str | None = _key(
        values.database_url,
        None,
        "The store, like `sqlite:////path/mail.db` or `postgresql://user@host/name`.",
    )
    tls: Tls = field(default_factory=Tls)
    smtp: Smtp = field(default_factory=Smtp)
    pop3: Pop3 = field(default_factory=Pop3)
    lmtp: Lmtp = field(default_factory=Lmtp)
    auth: Auth = field(default_factory=Auth)
    store: Store = field(default_factory=Store)
    retention: Retention = field(default_factory=Retention)
    housekeeping: Housekeeping = field(default_factory=Housekeeping)
    log: Log = field(default_factory=Log)

    @property
    def url(self) -> str:
        """The URL of the database: `database_url`, or else a file in `state_dir`."""
        return self.database_url or f"sqlite:///{self.state_dir / 'mail.db'}"

    @property
    def control_dir(self) -> Path:
        """Where each serving process has its control socket."""
        return self.state_dir / "control"


SECTIONS: Mapping[str, type[Any]] = {
    "": Settings, "tls": Tls, "smtp": Smtp, "pop3": Pop3, "lmtp": Lmtp, "auth": Auth,
    "store": Store, "retention": Retention, "housekeeping": Housekeeping, "log": Log,
}  # fmt: skip
"""The tables of the settings file; the keys above all tables are those of ""."""


class Key(NamedTuple):
    """One line of the reference: what a key is called, where its value goes, what it means."""

    section: str
    name: str
    attribute: str
    parse: Callable[[object], Any]
    default: Any  # as TOML has it; None where the program works it out
    meaning: str

    def __str__(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def variable(self) -> str:
        """The key's name in the environment."""
        return PREFIX + str(self).upper().replace(".", "__")


def _keys(section: str, columns: tuple[Field[Any], ...]) -> Iterator[Key]:
    for column in columns:
        if told := column.metadata:
            name = told["name"] or column.name
            yield Key(section, name, column.name, told["parse"], told["default"], told["meaning"])


KEYS = {str(key): key for section, shape in SECTIONS.items() for key in _keys(section, fields(shape))}
"""Every key that exists, by its dotted name, in the order of the documentation."""


class Reading(NamedTuple):
    """The settings, and for every key that somebody set the file or the variable that did."""

    settings: Settings
    origins: Mapping[str, str]


class _Said(NamedTuple):
    """A value as somebody wrote it, and where."""

    value: object
    origin: str


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings of `path` (None: no file) with the environment over them; raises BadSetting."""
    return read(path, environ).settings


def read(path: Path | None, environ: Mapping[str, str]) -> Reading:
    """As `load`, and where each value came from."""
    problems: list[str] = []
    said = {**_in_file(path, problems), **_in_environment(environ, problems)}
    parsed: dict[str, Any] = {}
    for name, (value, origin) in said.items():
        try:
            parsed[name] = KEYS[name].parse(value)
        except ValueError as error:
            problems.append(f"{origin}: {name}: {error}")
    settings = _placed(_assembled(parsed), path.absolute().parent if path else Path.cwd())
    problems.extend(_contradictions(settings, said, path))
    if problems:
        raise BadSetting("\n".join(problems))
    return Reading(settings, {name: origin for name, (_, origin) in said.items()})


def unreadable(settings: Settings) -> list[str]:
    """Why files that the settings name cannot be read, a sentence each; the service asks before it starts."""
    problems = []
    for name, file in (("certificate", settings.tls.certificate), ("private_key", settings.tls.private_key)):
        try:
            if file is not None:
                file.open("rb").close()
        except OSError as error:
            problems.append(f"tls.{name}: {file} cannot be read: {error.strerror}")
    return problems


def _in_file(path: Path | None, problems: list[str]) -> dict[str, _Said]:
    if path is None:
        return {}
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSetting(f"{path}: the settings file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadSetting(f"{path}: the settings file is not UTF-8 text (octet {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise BadSetting(f"{path}: the settings file is not TOML: {error}") from error
    said = {}
    for name, value in _flattened(tree, path, problems):
        if name in KEYS:
            said[name] = _Said(value, str(path))
        else:
            problems.append(f"{path}: {name}: {_unknown(name, list(KEYS))}")
    return said


def _flattened(tree: dict[str, Any], path: Path, problems: list[str]) -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if name in SECTIONS and not isinstance(value, dict):
            problems.append(
                f"{path}: {name}: this is a table of settings; write [{name}] on a line of its own"
            )
        elif isinstance(value, dict) and name not in KEYS:
            if name not in SECTIONS:
                problems.append(f"{path}: [{name}]: {_unknown(name, list(SECTIONS))}")
            else:
                yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def _in_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, _Said]:
    variables = {key.variable: str(key) for key in KEYS.values()}
    said = {}
    for variable in sorted(environ):
        if variable in variables:
            said[variables[variable]] = _Said(environ[variable], variable)
        elif variable.startswith(PREFIX) and variable not in NOT_SETTINGS:
            problems.append(f"environment: {variable}: {_unknown(variable, list(variables))}")
    return said


def _unknown(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"there is no such setting; did you mean {near[0]}?" if near else "there is no such setting"


def _assembled(parsed: Mapping[str, Any]) -> Settings:
    whole: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS if section}
    for name, value in parsed.items():
        key = KEYS[name]
        (parts[key.section] if key.section else whole)[key.attribute] = value
    whole.setdefault("hostname", socket.gethostname() or "localhost")
    return Settings(**whole, **{section: SECTIONS[section](**given) for section, given in parts.items()})


def _placed(settings: Settings, folder: Path) -> Settings:
    def absolute(file: Path | None) -> Path | None:
        return None if file is None else folder / file

    url = settings.database_url
    if url and (relative := re.fullmatch(r"sqlite:///([^/?].*)", url)):
        url = f"sqlite:///{folder / relative[1]}"
    tls = Tls(absolute(settings.tls.certificate), absolute(settings.tls.private_key))
    return replace(settings, state_dir=folder / settings.state_dir, database_url=url, tls=tls)


def _contradictions(settings: Settings, said: Mapping[str, _Said], path: Path | None) -> Iterator[str]:
    def where(*names: str) -> str:
        return next((said[name].origin for name in names if name in said), str(path))

    tls = settings.tls
    if tls.certificate and not tls.private_key:
        yield f"{where('tls.certificate')}: tls.private_key: a certificate needs its private key"
    if tls.private_key and not tls.certificate:
        yield f"{where('tls.private_key')}: tls.certificate: a private key needs its certificate"
    if settings.pop3.tls_listen and not tls.certificate:
        yield f"{where('pop3.tls_listen')}: pop3.tls_listen: TLS needs [tls] certificate and private_key"
    smtp = settings.smtp
    if smtp.max_octets_in_flight < smtp.max_message_octets:
        place = where("smtp.max_in_flight", "smtp.max_message_size")
        yield f"{place}: smtp.max_in_flight: a message of max_message_size has to fit"
    names = ("smtp.listen", "pop3.listen", "pop3.tls_listen", "lmtp.listen")
    lists = (settings.smtp.listen, settings.pop3.listen, settings.pop3.tls_listen, settings.lmtp.listen)
    users: dict[Listen, str] = {}
    for name, addresses in zip(names, lists, strict=True):
        for address in addresses:
            # Port 0 asks the kernel for any free port, so two of them never meet.
            if address in users and not (isinstance(address, TcpAddress) and address.port == 0):
                other = users[address]
                yield f"{where(name, other)}: {name}: {other} listens on {address} already"
            users[address] = name
