"""`python -m tests.counts`: what is counted now, beside its bounds, for whoever makes something cheaper."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mailstack.store import migrate
from tests.counts.rig import Counts, started
from tests.counts.rows import ROWS, prepare
from tests.support.appliance import Appliance

if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory() as folder,
        Appliance(Path(folder), module="tests.counts.counted") as appliance,
    ):
        with appliance.database() as database:
            migrate.upgrade(database, lambda text: None)
        server = started(appliance)
        prepare(server)
        print(f"{'for each':<45}", *(f"{name:>17}" for name in Counts._fields[:-1]))
        for row in ROWS:
            found = server.costs(row.work, row.before, row.bounds.hold)
            cells = (f"{now:>9.2f} of {most:>4g}" for now, most in zip(found[:-1], row.bounds, strict=True))
            print(f"{row.name:<45}", *(f"{cell:>17}" for cell in cells), flush=True)
