"""The URL of a database: as the store reads it, and as somebody else may see it."""

from __future__ import annotations

import os
import re
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from mailstack.errors import BadSetting

_SECRET: Final = re.compile("password|secret")
"""In the name of a parameter of the URL: `password` and `sslpassword` are libpq's."""

_HIDDEN: Final = "..."


def parsed(url: str) -> URL:
    """What the URL says; raises BadSetting where it names no database that the store can use."""
    found = _made(url)
    if found.drivername in ("postgresql", "postgres"):
        found = found.set(drivername="postgresql+psycopg")
    if found.get_backend_name() not in ("sqlite", "postgresql"):
        raise BadSetting(
            f"database_url names {found.drivername}: mailstack keeps mail in sqlite or postgresql"
        )
    if found.get_backend_name() == "sqlite":
        if not found.database:
            raise BadSetting("database_url names no file: write sqlite:////var/lib/mailstack/mail.db")
        # SQLite's log lies beside the file itself, not beside a link to it; so does the room that is left.
        found = found.set(database=os.path.realpath(found.database))
    # One place for it, from which no other program gets it as an argument.
    if isinstance(password := found.query.get("password"), str):
        found = found.set(password=password).difference_update_query(["password"])
    return found


def shown(url: str) -> str:
    """The URL without what is secret in it, in whatever part of it that is."""
    try:
        found = _made(url)
    except BadSetting:
        return _unreadable(url)
    hidden = {name: _HIDDEN for name in found.query if _SECRET.search(name.lower())}
    if found.password is None and not hidden:
        return url
    if found.password is not None:
        found = found.set(password=_HIDDEN)
    text = found.update_query_dict(hidden).render_as_string(hide_password=False)
    # A password with an @ in it that is not written as %40 goes on in what is read as the host.
    return re.sub(rf"(?<=:{re.escape(_HIDDEN)}@).*@", "", text)


def _made(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:  # no URL at all, or a port that is no number
        raise BadSetting(f"database_url is not a URL: {_unreadable(url)}") from error


def _unreadable(url: str) -> str:
    """Nobody knows where the password ends in this one."""
    scheme, sign, _ = url.partition("://")
    return f"{scheme}{sign}{_HIDDEN}" if sign else _HIDDEN
