"""`mailstack`, made careless: SQLite does not wait for the disk. Tests of power cuts have to see that."""

from mailstack.cli import main
from mailstack.store import sqlite

_CAREFUL, _CARELESS = "PRAGMA synchronous=FULL", "PRAGMA synchronous=OFF"

if __name__ == "__main__":
    assert _CAREFUL in sqlite._PRAGMAS
    sqlite._PRAGMAS = tuple(_CARELESS if each == _CAREFUL else each for each in sqlite._PRAGMAS)  # type: ignore[misc]
    raise SystemExit(main())
