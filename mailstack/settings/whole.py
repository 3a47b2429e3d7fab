"""All settings together: the tables of the file, the keys above them, and the list of every key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from mailstack import values
from mailstack.settings.acme import Acme
from mailstack.settings.field import key
from mailstack.settings.keeping import Backup, Housekeeping, Metrics, Retention, Store, Trace
from mailstack.settings.log import Log
from mailstack.settings.pop3 import Pop3
from mailstack.settings.security import Auth, Tls
from mailstack.settings.smtp import Lmtp, Smtp
from mailstack.values import Listen

DEFAULT_PATH = Path("/etc/mailstack/mailstack.toml")
"""Where the settings are when neither `--config` nor `MAILSTACK_CONFIG` says otherwise."""

PREFIX = "MAILSTACK_"
"""`MAILSTACK_SMTP__LISTEN` is the environment's name for `[smtp] listen`: two underscores for the dot."""

LISTENING: Mapping[str, str] = {
    "smtp": "smtp.listen", "pop3": "pop3.listen", "pop3s": "pop3.tls_listen", "lmtp": "lmtp.listen",
    "metrics": "metrics.listen",
}  # fmt: skip
"""The setting that says where to listen, by the socket's name, which is that of systemd's unit, too."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings; relative paths are made absolute, beginning at the settings file's folder."""

    hostname: str = key(values.host_name, None, "This server's name, in greetings and trace fields.")
    default_domain: str | None = key(values.domain, None, "The domain of a login name that has none.")
    postmaster: str | None = key(
        values.address, None, "Where mail for `postmaster` and `abuse` of every domain goes."
    )
    state_dir: Path = key(values.path, "/var/lib/mailstack", "The folder that holds all the server keeps.")
    database_url: str | None = key(
        values.database_url,
        None,
        "The store, like `sqlite:////path/mail.db` or `postgresql://user@host/name`.",
    )
    tls: Tls = field(default_factory=Tls)
    acme: Acme = field(default_factory=Acme)
    smtp: Smtp = field(default_factory=Smtp)
    pop3: Pop3 = field(default_factory=Pop3)
    lmtp: Lmtp = field(default_factory=Lmtp)
    auth: Auth = field(default_factory=Auth)
    store: Store = field(default_factory=Store)
    retention: Retention = field(default_factory=Retention)
    trace: Trace = field(default_factory=Trace)
    metrics: Metrics = field(default_factory=Metrics)
    housekeeping: Housekeeping = field(default_factory=Housekeeping)
    backup: Backup = field(default_factory=Backup)
    log: Log = field(default_factory=Log)

    @property
    def url(self) -> str:
        """The URL of the database: `database_url`, or else a file in `state_dir`."""
        return self.database_url or f"sqlite:///{self.state_dir / 'mail.db'}"

    @property
    def listening(self) -> dict[str, tuple[Listen, ...]]:
        """Every address to listen on, by the socket's name."""
        return {name: attrgetter(setting)(self) for name, setting in LISTENING.items()}

    @property
    def certificate_files(self) -> tuple[Path, Path]:
        """The certificate and its private key: those of `[tls]`, or else ours in `state_dir/tls`."""
        own = self.state_dir / "tls"
        return (
            self.tls.certificate or own / "certificate.pem",
            self.tls.private_key or own / "private-key.pem",
        )

    @property
    def control_dir(self) -> Path:
        """Where each serving process has its control socket."""
        return self.state_dir / "control"

    @property
    def spool_dir(self) -> Path:
        """Where a message lies that is being received, once it is large: not /tmp, which may be memory."""
        return self.state_dir / "spool"


SECTIONS: Mapping[str, type[Any]] = {
    "": Settings, "tls": Tls, "acme": Acme, "smtp": Smtp, "pop3": Pop3, "lmtp": Lmtp, "auth": Auth,
    "store": Store, "retention": Retention, "trace": Trace, "metrics": Metrics,
    "housekeeping": Housekeeping, "backup": Backup,
    "log": Log,
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
