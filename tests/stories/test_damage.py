"""A disk that forgets, and one that may not be written: what is whole is served, the rest is named."""

from __future__ import annotations

import poplib
import subprocess
from pathlib import Path

import pytest

from tests.stories.load import message
from tests.stories.test_trouble import on_small_disk
from tests.support.appliance import Appliance, retrieved

__all__ = ["on_small_disk"]


def spoil(appliance: Appliance, marker: bytes, by: bytes) -> None:
    """Overwrite the one place in the database that holds these octets."""
    path = Path(appliance.state_dir / "mail.db")
    octets = path.read_bytes()
    assert octets.count(marker) == 1
    with path.open("r+b") as file:
        file.seek(octets.index(marker))
        file.write(by)


@pytest.mark.parametrize("lost", [b"#", bytes(8192)], ids=["an octet", "a page"])
def test_a_damaged_message_is_named_and_the_others_are_served(appliance: Appliance, lost: bytes) -> None:
    appliance.start()
    for name in ("first", "second", "third"):
        # In the middle: where a message begins, a page of the database belongs to others, too.
        content = message(name, 100_000) + name.encode() * 9 + b"\r\n" + message(name, 100_000)
        assert appliance.send(content, "anna")[0] == 250
    appliance.stop()
    spoil(appliance, b"second" * 9, lost)
    appliance.start()

    session = appliance.pop3("anna")
    assert b"first" * 9 in retrieved(session, 1)
    with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/PERM\].*damaged"):
        session.retr(2)
    assert b"third" * 9 in retrieved(session, 3)
    assert session.stat()[0] == 3
    session.quit()
    (found,) = appliance.findings()
    assert found.startswith("message 2 is damaged")


def test_a_disk_that_may_not_be_written_stops_the_start_with_a_reason(on_small_disk: Appliance) -> None:
    appliance = on_small_disk
    appliance.start()
    assert appliance.send(message("kept", 1000), "anna")[0] == 250
    appliance.stop()
    log = appliance.log
    remounted = ["mount", "-o", "remount,ro", str(appliance.folder)]
    subprocess.run(remounted, check=True)
    try:
        appliance.log = log.parent.parent / "said"
        process = appliance.run()
        assert process.wait() in (69, 74, 75, 77, 78)
        assert "read-only" in appliance.log.read_text().lower()
        appliance.processes.clear()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(appliance.folder)], check=True)
        appliance.log = log
    appliance.start()
    assert appliance.pop3("anna").stat()[0] == 1
