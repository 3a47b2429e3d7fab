"""What the probes saw: plain values, so that every judgement is a function of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from mailstack.certificates import Standing
from mailstack.settings import Settings
from mailstack.store.fullness import Full


class Unseen(str):
    """Why this user may not look at something; root may."""

    __slots__ = ()


class Answer(NamedTuple):
    """What a resolver said to one question."""

    records: tuple[str, ...] = ()
    """In the zone file's spelling, names lower case with the final dot; texts joined and without quotes."""
    problem: str = ""
    """Why there is no answer; an answer of no records is none of these."""
    authentic: bool = False
    """The resolver has checked the signatures (DNSSEC)."""
    alias: str = ""
    """The name at the end of a CNAME, where there was one."""


Names = Mapping[tuple[str, str], Answer]
"""Answers by name without final dot, lower case, and record type."""


class Memory(NamedTuple):
    """Octets in all, and what programs can still get."""

    total: int
    available: int


class Disk(NamedTuple):
    """The file system that holds a folder."""

    path: Path
    device: int
    total: int
    free: int
    inodes: int  # 0: the file system counts none
    free_inodes: int


class Backups(NamedTuple):
    """What lies in the folder of `[backup]`."""

    newest: datetime | None = None  # when it was made; None: there is none
    store: int | None = None  # the identity of the store that they are of
    problem: str = ""  # why they cannot be looked at


class Machine(NamedTuple):
    """The box itself; None is what could not be seen."""

    name: str
    memory: Memory | None
    state_disk: Disk | None
    backup_disk: Disk | None
    clock_is_synchronised: bool | None
    addresses: tuple[str, ...]
    """The addresses from which the box speaks to the rest of the world, of each family at most one."""
    backups: Backups = Backups()


class Port(NamedTuple):
    """An address of the settings, who listens there, and whether it answers as it should."""

    role: str
    address: str
    port: int | None  # None: a unix socket
    held: bool
    answers: bool
    holder: str  # "master (process 812)", empty where it cannot be seen
    ours: bool | None  # whether the holder is mailstack; None: it cannot be seen


class Reach(NamedTuple):
    """Whether a published address took a connection from here."""

    address: str
    port: int
    problem: str  # empty: it did


class Outbound(NamedTuple):
    """Whether a connection to some mail server's port 25 came about."""

    host: str
    problem: str  # empty: it did


class Policy(NamedTuple):
    """What `https://mta-sts.DOMAIN/.well-known/mta-sts.txt` said (RFC 8461 §3.2)."""

    text: str
    problem: str


class Certificate(NamedTuple):
    """The certificate of the settings."""

    path: Path
    standing: Standing
    chain_problem: str  # empty: this machine's roots lead to it
    key_fits: bool
    key_is_private: bool
    association: Mapping[tuple[int, int], str]
    """Selector and matching type of TLSA (RFC 6698 §2.1) to the data in hexadecimal digits."""
    fingerprint: str  # SHA-256 of the whole, in hexadecimal digits
    issuer_associations: tuple[Mapping[tuple[int, int], str], ...] = ()
    """The same of the other certificates of the file, for usage 2."""


class Store(NamedTuple):
    """What the database tells of itself."""

    problem: str  # why it cannot be opened; empty: it can
    revision: str | None = None
    findings: tuple[str, ...] = ()  # what does not add up
    checked: bool = False
    domains: tuple[str, ...] = ()
    accounts: int = 0
    last_backup: datetime | None = None
    last_verified: datetime | None = None
    last_housekeeping: datetime | None = None
    identity: int | None = None
    names: frozenset[str] = frozenset()  # the domains, and their old names
    addresses: frozenset[str] = frozenset()  # accounts and aliases, under each name of their domains
    full: tuple[Full, ...] = ()  # maildrops whose mail is refused


class Session(NamedTuple):
    """Somebody who has a maildrop open."""

    session: str
    account: str
    address: str
    since: datetime
    idle_seconds: float


class Process(NamedTuple):
    """One process of the service; the limit is None where it cannot be seen."""

    pid: int
    sockets: tuple[str, ...]
    max_open_files: int | None


class Unit(NamedTuple):
    """A unit of systemd's, in its own words."""

    name: str
    load: str
    active: str
    sub: str
    enabled: str
    result: str


class Service(NamedTuple):
    """What runs; None is what could not be asked."""

    processes: tuple[Process, ...] | None
    sessions: tuple[Session, ...]
    units: tuple[Unit, ...] | None
    served_fingerprints: Mapping[str, str]
    """By address of a TLS listener the SHA-256 of the certificate that it shows."""
    problem: str = ""  # why the processes could not be asked


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that was seen, at one moment; None is what nobody looked at."""

    now: datetime
    settings: Settings
    domains: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    """The public addresses that somebody named; empty: those of the machine."""
    machine: Machine | None = None
    names: Names | None = None
    ports: tuple[Port, ...] | None = None
    reach: Sequence[Reach] | None = None
    outbound: Sequence[Outbound] | None = None
    policies: Mapping[str, Policy] = field(default_factory=dict)
    certificate: Certificate | None = None
    certificate_problem: str = ""
    store: Store | None = None
    service: Service | None = None

    @property
    def host(self) -> str:
        """The server's name, as the DNS is asked for it."""
        return self.settings.hostname.lower()

    def answer(self, name: str, kind: str) -> Answer:
        """What the DNS said about that name and record type."""
        return (self.names or {}).get((name, kind), Answer(problem="nobody asked"))
