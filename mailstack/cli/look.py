"""Sends out the probes and gathers what they saw, for every command that judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mailstack.checks import records
from mailstack.checks.facts import Facts, Policy, Process, Reach, Service, Session, Store, Unseen
from mailstack.checks.probes import certificate, machine, names, ports, reach, shown, store, units
from mailstack.cli.admin import Admin
from mailstack.cli.control import ask_all
from mailstack.cli.exits import Usage, sentence
from mailstack.errors import MailstackError, NotRunning
from mailstack.settings import Settings
from mailstack.values import TcpAddress


class Glasses(NamedTuple):
    """How to look: through which resolver, from which public addresses, and whether beyond this machine."""

    resolver: str | None = None
    addresses: Sequence[str] = ()
    offline: bool = False


def at_machine(settings: Settings, glasses: Glasses, domains: Sequence[str] = ()) -> Facts:
    """What can be seen before there is a store: the box, its ports, its certificate and its names."""
    facts = _here(settings, glasses, domains)
    return facts if glasses.offline else _beyond(facts, glasses)


def _here(settings: Settings, glasses: Glasses, domains: Sequence[str] = ()) -> Facts:
    now = datetime.now(UTC)
    found, problem = certificate.look(*settings.certificate_files, settings.hostname.lower(), now)
    return Facts(
        now,
        settings,
        domains=tuple(domains),
        addresses=tuple(glasses.addresses),
        machine=machine.look(settings.state_dir, settings.backup.folder),
        ports=ports.look(settings),
        certificate=found,
        certificate_problem=problem,
    )


def named(facts: Facts, glasses: Glasses) -> Facts:
    """The same, with what the DNS says."""
    asker = names.Asker(_server(glasses.resolver))
    addresses = records.public_addresses(facts)
    return replace(facts, names=names.look(asker, facts.settings.hostname, facts.domains, addresses))


def _beyond(facts: Facts, glasses: Glasses) -> Facts:
    asker = names.Asker(_server(glasses.resolver))
    return replace(named(facts, glasses), outbound=reach.outbound(asker))


def all_of_it(admin: Admin, glasses: Glasses, *, recount: bool) -> Facts:
    """Everything; turns into the owner of the store on the way, so what root alone sees comes first."""
    settings = admin.settings
    seen_units = units.look()
    facts = _here(settings, glasses)
    shows = shown.fingerprints(settings)
    service = _service(settings)._replace(units=seen_units, served_fingerprints=shows)
    told = _store(admin, recount=recount)
    facts = replace(facts, domains=told.domains, store=told, service=service)
    if glasses.offline:
        return facts
    facts = _beyond(facts, glasses)
    return replace(facts, reach=_reached(facts), policies=_policies(facts, glasses))


def _store(admin: Admin, *, recount: bool) -> Store:
    try:
        with admin.database(any_schema=True) as database:
            return store.look(database, recount=recount)
    except PermissionError as error:
        return Store(Unseen(sentence(error)))
    except MailstackError as error:
        return Store(str(error))


def _service(settings: Settings) -> Service:
    limits: dict[int, int | None] = {}
    try:
        processes = ask_all(settings, "status")
        limits = {each["pid"]: ports.max_open_files(each["pid"]) for each in processes}
        sessions = ask_all(settings, "sessions")
    except NotRunning:
        return Service((), (), None, {})
    except PermissionError as error:
        return Service(None, (), None, {}, Unseen(sentence(error)))
    except (MailstackError, OSError) as error:
        return Service(None, (), None, {}, sentence(error))
    told = (Process(each["pid"], tuple(each["sockets"]), limits[each["pid"]]) for each in processes)
    held = (_session(each) for answer in sessions for each in answer["sessions"] if each["account"])
    return Service(tuple(told), tuple(held), None, {})


def _session(told: dict[str, Any]) -> Session:
    since = datetime.fromtimestamp(told["since"], UTC)
    return Session(told["session"], told["account"], told["address"], since, told["idle_seconds"])


def _reached(facts: Facts) -> tuple[Reach, ...]:
    settings = facts.settings
    listening = (*settings.smtp.listen, *settings.pop3.listen, *settings.pop3.tls_listen)
    # What listens on loopback alone is not meant for the world.
    open_ports = [each.port for each in listening if isinstance(each, TcpAddress) and not each.is_loopback]
    published = records.published_addresses(facts)
    return reach.addresses([(address, port) for address in published for port in dict.fromkeys(open_ports)])


def _policies(facts: Facts, glasses: Glasses) -> dict[str, Policy]:
    names_seen = facts.names or {}
    announced = [each for each in facts.domains if names_seen[f"_mta-sts.{each}", "TXT"].records]
    return reach.policies(names.Asker(_server(glasses.resolver)), announced)


def _server(resolver: str | None) -> tuple[str, int] | None:
    """`ADDRESS` or `ADDRESS:PORT` of a resolver."""
    if resolver is None:
        return None
    try:
        return names.server(resolver)
    except ValueError as error:
        raise Usage(f"--resolver {error}") from error
