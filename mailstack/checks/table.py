"""Every check there is, in the order in which people read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from mailstack.checks import (
    judge_certificate,
    judge_machine,
    judge_names,
    judge_policies,
    judge_reach,
    judge_service,
)
from mailstack.checks.facts import Facts
from mailstack.checks.finding import Finding


class Check(NamedTuple):
    """A name that scripts can rely on, what judges, and whether it makes sense before the first start."""

    name: str
    judge: Callable[[Facts], Iterable[Finding]]
    of_names: bool = False  # and says nothing where nobody has asked the DNS
    at_setup: bool = False
    afterwards: bool = True


CHECKS: Final = (
    Check("memory", judge_machine.memory, at_setup=True),
    Check("disk", judge_machine.disk, at_setup=True),
    Check("clock", judge_machine.clock, at_setup=True),
    Check("hostname", judge_machine.hostname, at_setup=True),
    Check("ports", judge_machine.free_ports, at_setup=True, afterwards=False),
    Check("resolver", judge_names.resolver, of_names=True, at_setup=True),
    Check("address", judge_names.address, of_names=True, at_setup=True),
    Check("reverse", judge_names.reverse, of_names=True, at_setup=True),
    Check("mx", judge_names.exchanger, of_names=True),
    Check("spf", judge_policies.spf, of_names=True),
    Check("srv", judge_names.service_record, of_names=True),
    Check("dane", judge_policies.dane, of_names=True),
    Check("mta-sts", judge_policies.strict_transport, of_names=True),
    Check("outbound", judge_reach.outbound, at_setup=True),
    Check("listeners", judge_machine.listeners),
    Check("inbound", judge_reach.inbound),
    Check("certificate", judge_certificate.validity, at_setup=True),
    Check("certificate-names", judge_certificate.names, at_setup=True),
    Check("private-key", judge_certificate.key, at_setup=True),
    Check("certificate-chain", judge_certificate.chain, at_setup=True),
    Check("certificate-served", judge_certificate.served),
    Check("database", judge_service.database),
    Check("accounts", judge_service.accounts),
    Check("quotas", judge_service.quotas),
    Check("backup", judge_service.backup),
    Check("backup-disk", judge_machine.backup_disk, at_setup=True),
    Check("housekeeping", judge_service.housekeeping),
    Check("service", judge_service.processes),
    Check("locks", judge_service.locks),
    Check("units", judge_service.units),
    Check("limits", judge_machine.open_files),
)


class Said(NamedTuple):
    """A finding, and the check that says it."""

    check: str
    finding: Finding


def before_start(facts: Facts) -> Iterator[Said]:
    """What `setup` asks before it changes anything."""
    return _all(facts, [check for check in CHECKS if check.at_setup])


def afterwards(facts: Facts) -> Iterator[Said]:
    """What `doctor` asks."""
    return _all(facts, [check for check in CHECKS if check.afterwards])


def _all(facts: Facts, checks: Iterable[Check]) -> Iterator[Said]:
    for check in checks:
        if facts.names is not None or not check.of_names:
            yield from (Said(check.name, finding) for finding in check.judge(facts))
