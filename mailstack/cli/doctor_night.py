"""What the nightly doctor remembers, and the mail that tells what has changed since."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Any, NamedTuple

from mailstack.checks.facts import Facts
from mailstack.checks.finding import Level
from mailstack.checks.table import Said
from mailstack.cli import deliver, show
from mailstack.cli.admin import Admin
from mailstack.files import write_whole
from mailstack.mail.address import fold_domain

FILE = "doctor.json"
"""In state_dir: the findings of the last night of which the postmaster knows."""

Key = str
"""A check and what it is about: `mx MX of example.org`."""


class Remembered(NamedTuple):
    """An old finding, as far as it is compared and told again."""

    level: str
    stage: str
    what: str


class Change(NamedTuple):
    """What is new or worse or better, what is gone, and what is to be remembered."""

    new: tuple[Said, ...]
    mended: Mapping[Key, Remembered]
    now: Mapping[Key, Remembered]


def told(admin: Admin, facts: Facts, said: Sequence[Said]) -> str:
    """Mail what has changed, then remember it; return one line for the journal."""
    settings = admin.settings
    file = settings.state_dir / FILE
    change = compared(read(file), said)
    if change.new or change.mended:
        domain = _domain(facts)
        text = letter(facts, change, domain)
        with admin.database() as database:
            postmaster = [f"postmaster@{domain}"]
            deliver.deposited(settings, database, postmaster, "", io.BytesIO(bytes(text)))
    write(file, change.now)
    if change.new or change.mended:
        return f"{_count(change)}; the postmaster has mail about it"
    return f"nothing has changed, {show.counted(len(change.now), 'finding')} as before"


def _domain(facts: Facts) -> str:
    """Of the postmaster who gets the mail: one that is there, whatever the settings still name."""
    default = facts.settings.default_domain
    if default is not None and facts.store is not None and fold_domain(default) in facts.store.names:
        return default
    return next(iter(facts.domains), default or facts.settings.hostname)


def key_of(said: Said) -> Key:
    """What a finding is compared by; no two of one night have the same."""
    return f"{said.check} {said.finding.subject}"


def compared(before: Mapping[Key, Remembered], said: Sequence[Said]) -> Change:
    """What tonight says, against what the last night said.

    What could not be seen tonight stays as it was: a resolver that is down has mended nothing.
    """
    found = {key_of(each): each for each in said}
    seen = {each.check for each in said if each.finding.level is not Level.UNKNOWN}
    bad = {key: each for key, each in found.items() if each.finding.level >= Level.ADVICE}
    now = {
        key: Remembered(each.finding.level.word, each.finding.stage, each.finding.what)
        for key, each in bad.items()
    }
    new = tuple(each for key, each in bad.items() if key not in before or before[key][:2] != now[key][:2])
    gone = {key: old for key, old in before.items() if key not in now}
    mended = {
        key: old
        for key, old in gone.items()
        if (found[key].finding.level is Level.FINE if key in found else key.partition(" ")[0] in seen)
    }
    kept = {key: old for key, old in gone.items() if key not in mended}
    return Change(new, mended, now | kept)


def letter(facts: Facts, change: Change, domain: str) -> EmailMessage:
    """The mail to the postmaster."""
    from mailstack.cli.doctor import paragraph

    message = EmailMessage()
    message["Date"] = format_datetime(facts.now)
    message["From"] = f"mailstack doctor <postmaster@{domain}>"
    message["To"] = f"postmaster@{domain}"
    message["Subject"] = f"{facts.settings.hostname}: {_count(change)}"
    message["Message-ID"] = make_msgid(domain=facts.settings.hostname)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation program answers
    parts = [paragraph(each.finding) for each in sorted(change.new, key=lambda each: -each.finding.level)]
    parts += [f"mended   {key.partition(' ')[2]}: {old.what}" for key, old in change.mended.items()]
    parts.append("mailstack doctor shows everything, at any time. Mail comes only when something changes.")
    message.set_content("\n\n".join(parts) + "\n", cte="8bit")  # a record to copy is not broken up
    return message


def read(file: Path) -> dict[Key, Remembered]:
    """What was remembered; nothing on the first night, or where the file is damaged."""
    try:
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["findings"]
        return {key: Remembered(**each) for key, each in kept.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def write(file: Path, findings: Mapping[Key, Remembered]) -> None:
    """Remember, whole or not at all."""
    kept = {"findings": {key: each._asdict() for key, each in findings.items()}}
    write_whole(file, json.dumps(kept, indent=2).encode(), mode=0o600)


def _count(change: Change) -> str:
    new = f"{show.counted(len(change.new), 'new finding')}" if change.new else ""
    mended = f"{len(change.mended)} mended" if change.mended else ""
    return ", ".join(filter(None, (new, mended)))
