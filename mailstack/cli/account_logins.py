"""`mailstack account unlock`, and what `account show` tells of logins that failed."""

from __future__ import annotations

from typing import Any

import typer

from mailstack.auth import throttle
from mailstack.auth.throttle import Standing
from mailstack.cli import ask, show
from mailstack.cli.options import Address, admin
from mailstack.store import accounts, logins
from mailstack.store.clock import moment, now
from mailstack.store.logins import Device

EXAMPLE = "Example: mailstack account unlock jo@example.org"


def unlock(context: typer.Context, address: Address) -> None:
    """Forget the failed logins of an account, so that nobody has to wait; known devices never do."""
    mailbox = ask.mailbox(address, admin(context).settings)
    with admin(context).database() as database, database.writing() as connection:
        found = accounts.find_account(connection, mailbox)
        forgiven = logins.unlock(connection, str(found.mailbox))
    print(f"{found.mailbox}: " + ("its failed logins are forgotten" if forgiven else "no login had failed"))


def standing(devices: list[Device]) -> Standing:
    """How the throttle sees an account, from its rows."""
    return throttle.standing(devices, now())


def sentence(standing: Standing) -> str:
    """The failures, for a person."""
    if not standing.failures or standing.until is None:
        return "none lately"
    until = show.moment(moment(standing.until))
    waits = f"new devices wait {standing.wait_seconds:.0f} s" if standing.wait_seconds else "nobody waits"
    return f"{standing.failures}; {waits}; forgotten at {until} unless more follow"


def fields(standing: Standing) -> dict[str, Any]:
    """The same for a script."""
    return {
        "failed_logins": standing.failures,
        "login_wait_seconds": standing.wait_seconds,
        "failed_logins_forgotten_at": None if standing.until is None else moment(standing.until),
        "known_devices": list(standing.known),
    }
