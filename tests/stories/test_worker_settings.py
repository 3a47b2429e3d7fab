"""Each worker has its part of what the settings say now: after a reload, and in the place of another."""

from __future__ import annotations

import os
import poplib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.appliance import Appliance, Process, wait_until


@contextmanager
def stopped(worker: int) -> Iterator[None]:
    """For as long as the block lasts a worker takes no connection: each is another's."""
    os.kill(worker, signal.SIGSTOP)
    try:
        stat = Path(f"/proc/{worker}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", what="it has stopped")
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def lines(appliance: Appliance, *words: str) -> int:
    """How many lines of the log have all of these words."""
    return sum(all(word in line for word in words) for line in appliance.said().splitlines())


def write(appliance: Appliance, before: str, after: str) -> None:
    text = appliance.config.read_text()
    assert before in text
    appliance.config.write_text(text.replace(before, after))


def reload(appliance: Appliance, process: Process, *said: str, workers: int) -> None:
    """Wait until so many workers have read the settings anew, and said so in these words."""
    before = lines(appliance, *said)
    os.kill(process.pid, signal.SIGHUP)
    wait_until(lambda: lines(appliance, *said) == before + workers, what="the settings are read anew")


def refused(appliance: Appliance) -> None:
    with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/TEMP\]"):
        appliance.pop3_plain()


def left(appliance: Appliance, session: poplib.POP3, account: str) -> None:
    """End a session, and wait until it is counted no more."""
    session.quit()
    wait_until(lambda: lines(appliance, "event=pop3.session", f"account={account}@") == 1, what="it is over")


def test_a_reload_divides_among_the_workers_what_there_may_be_now(appliance: Appliance) -> None:
    appliance.add_accounts("carl")
    write(appliance, "[pop3]\n", "[pop3]\nmax_connections = 2\n")
    process = appliance.start("pop3", "--workers", "2")
    changed = "event=reloaded", "changed=pop3.max_connections"
    with stopped(process.children()[0]):
        anna = appliance.pop3("anna")
        refused(appliance)

        write(appliance, "max_connections = 2\n", "max_connections = 4\n")
        reload(appliance, process, *changed, workers=1)
        ben = appliance.pop3("ben")
        refused(appliance)

        # With less than there are nobody is sent away, and nobody comes in the place of who leaves.
        write(appliance, "max_connections = 4\n", "max_connections = 2\n")
        reload(appliance, process, *changed, workers=1)
        assert anna.noop().startswith(b"+OK")
        left(appliance, anna, "anna")
        refused(appliance)
        assert ben.noop().startswith(b"+OK")
        left(appliance, ben, "ben")
        appliance.pop3("carl")
    wait_until(lambda: lines(appliance, "event=reloaded") == 3, what="the other one has read them, too")
    appliance.stop()


def test_the_largest_message_may_be_larger_than_the_part_of_a_worker_was(appliance: Appliance) -> None:
    write(appliance, "[smtp]\n", "[smtp]\nmax_in_flight = '100MiB'\n")
    process = appliance.start("smtp", "--workers", "2")
    victim, other = process.children()
    write(appliance, "[smtp]\n", "[smtp]\nmax_message_size = '80MiB'\n")
    reload(appliance, process, "event=reloaded", "needs_restart=smtp.max_message_size", workers=2)

    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: lines(appliance, "event=serving") == 3, what="a new worker serves")
    with stopped(other), appliance.smtp() as connection:
        assert connection.esmtp_features["size"] == str(80 << 20)
    appliance.stop()
