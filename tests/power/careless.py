"""`mailstack`, made careless: SQLite does not wait for the disk. Tests of power cuts have to see that."""

from mailstack.cli import main
from mailstack.store import engine

_CAREFUL, _CARELESS = "PRAGMA synchronous=FULL", "PRAGMA synchronous=OFF"

if __name__ == "__main__":
    assert _CAREFUL in engine._PRAGMAS
    engine._PRAGMAS = tuple(_CARELESS if each == _CAREFUL else each for each in engine._PRAGMAS)  # type: ignore[misc]
    raise SystemExit(main())
