"""Judgements about the certificate: is it one that mail programs take, and for how long?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mailstack.certificates import WARN_DAYS
from mailstack.checks.facts import Facts, Unseen
from mailstack.checks.finding import Finding, advice, fine, unknown, unseen, warning, wrong

_STAGES: Final = (1, 3, 7, WARN_DAYS)
"""So many days before the end it is said once more."""

_RENEW: Final = (
    "mailstack certificate renew; docs/tls.md tells how that, or certbot or lego, is done by itself"
)


def validity(facts: Facts) -> Iterator[Finding]:
    """Whether there is one, and its time."""
    if facts.certificate is None:
        yield _none(facts)
        return
    path, standing = facts.certificate.path, facts.certificate.standing
    left, day = standing.days_left(facts.now), f"{standing.not_after:%Y-%m-%d}"
    why = "Mail programs refuse it from that day on, and people are asked questions that nobody can answer."
    if standing.not_before > facts.now:
        yield wrong(
            "certificate",
            f"{path} is valid from {standing.not_before:%Y-%m-%d %H:%M} UTC on only",
            why,
            "See whether the clock is right: timedatectl",
        )
    elif left < 0:
        yield wrong("certificate", f"{path} ended on {day}", why, _RENEW)
    elif left < WARN_DAYS:
        stage = next(str(days) for days in _STAGES if left < days)
        count = f"{left} day{'' if left == 1 else 's'}"
        yield warning("certificate", f"{path} ends on {day}, in {count}", why, _RENEW, stage=stage)
    else:
        yield fine("certificate", f"valid until {day}")


def _none(facts: Facts) -> Finding:
    named = facts.settings.tls.certificate
    if isinstance(facts.certificate_problem, Unseen):
        return unseen("certificate", facts.certificate_problem)
    if facts.certificate_problem or named is not None:
        return wrong(
            "certificate",
            facts.certificate_problem or f"there is no {named}, which the settings name",
            "Without it there is no TLS, and no mail program may log in over the network.",
            "Put a certificate and its key there; where the settings name none, the next start makes them",
        )
    return unknown("certificate", "there is none yet; the first start makes one that is self-signed")


def names(facts: Facts) -> Iterator[Finding]:
    """Whether it is for this server's name."""
    seen, host = facts.certificate, facts.host
    if seen is None:
        return
    if not seen.standing.names_host(host):
        yield wrong(
            "certificate's names",
            f"{seen.path} is for {', '.join(seen.standing.names) or 'no name'}, and not for {host}",
            "Mail programs compare it with the name that people have typed, and refuse another one.",
            f"Get one for {host}",
        )
    else:
        yield fine("certificate's names", host)


def key(facts: Facts) -> Iterator[Finding]:
    """Whether the private key fits, and is private."""
    seen = facts.certificate
    if seen is None:
        return
    file = facts.settings.certificate_files[1]
    if not seen.key_fits:
        yield wrong(
            "private key",
            f"{file} is not the key of {seen.path}",
            "The server does not start with them, and a running one keeps the pair that it has.",
            "Put both files of one pair in place",
        )
    elif not seen.key_is_private:
        yield warning(
            "private key",
            f"everybody on this machine can read {file}",
            "Who has it can pose as this server.",
            f"chmod 600 {file}",
        )
    else:
        yield fine("private key", "fits, and is private")


def chain(facts: Facts) -> Iterator[Finding]:
    """Whether programs that never heard of this server trust it."""
    seen = facts.certificate
    if seen is None:
        return
    if seen.standing.self_signed:
        yield advice(
            "certificate's chain",
            "it is self-signed: this server has vouched for itself",
            "Other servers send mail here all the same, encrypted. Mail programs ask whether to trust it.",
            "mailstack certificate obtain --email you@example.org; docs/tls.md tells more",
        )
    elif seen.chain_problem:
        yield warning(
            "certificate's chain",
            f"this machine does not trust it: {seen.chain_problem}",
            "Mail programs that know no more than this machine refuse it.",
            f"Let {seen.path} hold the whole chain (certbot calls it fullchain.pem)",
        )
    else:
        yield fine("certificate's chain", "trusted")


def served(facts: Facts) -> Iterator[Finding]:
    """Whether what the server shows is what lies on the disk."""
    seen, shown = facts.certificate, facts.service.served_fingerprints if facts.service else {}
    for address, fingerprint in shown.items() if seen is not None else ():
        assert seen is not None
        if fingerprint != seen.fingerprint:
            yield warning(
                f"certificate at {address}",
                f"the server shows another certificate than {seen.path} holds",
                "A renewed certificate helps nobody before the server uses it.",
                "systemctl reload 'mailstack@*'; the journal tells if the new files do not fit together",
            )
        else:
            yield fine(f"certificate at {address}", "the one on the disk")
