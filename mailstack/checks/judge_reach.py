"""Judgements about the way to this server, and from it."""

from __future__ import annotations

from collections.abc import Iterator

from mailstack.checks.facts import Facts
from mailstack.checks.finding import Finding, fine, unknown, warning


def inbound(facts: Facts) -> Iterator[Finding]:
    """Whether the published addresses take connections, as far as that can be seen from inside."""
    own = facts.machine.addresses if facts.machine else ()
    for each in facts.reach or ():
        address = f"[{each.address}]" if ":" in each.address else each.address
        subject = f"{address} port {each.port} from here"
        if not each.problem:
            yield fine(subject, "takes connections")
        elif each.address in own:
            yield warning(
                subject,
                f"it takes no connection: {each.problem}",
                "What does not work from here does not work from outside.",
                f"Let it pass in the firewall: ufw allow {each.port}/tcp; and see [smtp] and [pop3] listen",
            )
        else:
            yield unknown(
                subject,
                f"it takes no connection from here: {each.problem}",
                "Many routers pass on what comes from outside, and not what comes from within.",
                f"Try from another network: nc -vz {each.address} {each.port};"
                f" if it fails there, let the router pass port {each.port} on to this machine",
            )


def outbound(facts: Facts) -> Iterator[Finding]:
    """Whether this network lets mail out: many providers close port 25 until one asks."""
    tried = facts.outbound
    if tried is None:
        return
    good = [each for each in tried if not each.problem]
    if good:
        yield fine("outbound port 25", f"{good[0].host} answers")
    elif not tried:
        yield unknown("outbound port 25", "there was no server to try, because the DNS named none")
    else:
        yield warning(
            "outbound port 25",
            f"no connection to {' or '.join(each.host for each in tried)}: {tried[0].problem}",
            "Receiving mail works without it; sending mail to other servers from this machine does not.",
            "Ask your provider to open port 25 for you, or send through a provider's server",
        )
