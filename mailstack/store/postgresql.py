"""PostgreSQL as the store uses it: how connections to it are, and how soon one is given up."""

from __future__ import annotations

import os
from typing import Final

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import NoSuchModuleError

from mailstack.errors import BadSetting

_PATIENCE: Final = {
    "connect_timeout": "10",  # seconds
    "keepalives_idle": "20",  # seconds
    "keepalives_interval": "5",  # seconds
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",  # milliseconds
}
"""How soon a server is given up that says nothing: one without power or network does not even end its
connections, and the system would send what it does not answer for a quarter of an hour."""


def engine_of(url: URL, connections: int) -> Engine:
    """Connections to a server, twice so many at most; raises BadSetting where the driver is missing."""
    said = {"application_name": f"mailstack {os.getpid()}", **_PATIENCE, **url.query}
    try:
        return create_engine(
            url.set(query=said),
            pool_size=connections,
            max_overflow=connections,
            pool_pre_ping=True,  # a restarted server costs nobody a failed reply
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise BadSetting(
            "a postgresql database needs the driver: pip install 'mailstack[postgresql]'"
        ) from error
