"""What is made of what was seen: box, ports, store, units; and probes that need no network."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from mailstack.checks import judge_certificate, judge_machine, judge_names, judge_service, table
from mailstack.checks.facts import (
    Answer,
    Facts,
    Memory,
    Port,
    Process,
    Service,
    Session,
    Store,
    Unit,
    Unseen,
)
from mailstack.checks.finding import Level, unknown
from mailstack.checks.probes import machine, ports, units
from mailstack.settings import Pop3, Settings, Smtp
from mailstack.values import TcpAddress
from tests.checks.samples import BOX, DISK, FINE, GIBIBYTE, HOST, NOW, STORE, levels


def with_disk(**changes: int) -> Facts:
    return replace(FINE, machine=BOX._replace(state_disk=DISK._replace(**changes)))


BOXES: Final = {
    "enough memory": (judge_machine.memory, FINE, Level.FINE),
    "little memory": (
        judge_machine.memory,
        replace(FINE, machine=BOX._replace(memory=Memory(GIBIBYTE, 100 << 20))),
        Level.WARNING,
    ),
    "hidden memory": (judge_machine.memory, replace(FINE, machine=BOX._replace(memory=None)), Level.UNKNOWN),
    "enough disk": (judge_machine.disk, FINE, Level.FINE),
    "nearly full disk": (judge_machine.disk, with_disk(free=5 * GIBIBYTE), Level.WARNING),
    "disk below the reserve": (judge_machine.disk, with_disk(free=1 << 20), Level.WRONG),
    "few files left": (judge_machine.disk, with_disk(free_inodes=3), Level.WARNING),
    "a file system without a count of files": (
        judge_machine.disk,
        with_disk(inodes=0, free_inodes=0),
        Level.FINE,
    ),
    "clock kept right": (judge_machine.clock, FINE, Level.FINE),
    "clock left alone": (
        judge_machine.clock,
        replace(FINE, machine=BOX._replace(clock_is_synchronised=False)),
        Level.WARNING,
    ),
    "clock of long ago": (
        judge_machine.clock,
        replace(FINE, now=datetime(1970, 1, 2, tzinfo=UTC)),
        Level.WRONG,
    ),
    "public name": (judge_machine.hostname, FINE, Level.FINE),
    "private name": (
        judge_machine.hostname,
        replace(FINE, settings=Settings(hostname="box.local")),
        Level.WRONG,
    ),
    "name without a domain": (
        judge_machine.hostname,
        replace(FINE, settings=Settings(hostname="box")),
        Level.WRONG,
    ),
    "another name of the machine": (
        judge_machine.hostname,
        replace(FINE, machine=BOX._replace(name="box")),
        Level.ADVICE,
    ),
    "backups elsewhere": (judge_machine.backup_disk, FINE, Level.FINE),
    "backups on the same disk": (
        judge_machine.backup_disk,
        replace(FINE, machine=BOX._replace(backup_disk=DISK)),
        Level.ADVICE,
    ),
    "database": (judge_service.database, FINE, Level.FINE),
    "database that does not open": (judge_service.database, replace(FINE, store=Store("no")), Level.WRONG),
    "database that this user may not open": (
        judge_service.database,
        replace(FINE, store=Store(Unseen("no"))),
        Level.UNKNOWN,
    ),
    "certificate that this user may not read": (
        judge_certificate.validity,
        replace(FINE, certificate_problem=Unseen("no")),
        Level.UNKNOWN,
    ),
    "database of another schema": (
        judge_service.database,
        replace(FINE, store=Store("", "0001")),
        Level.WRONG,
    ),
    "database of a newer program": (
        judge_service.database,
        replace(FINE, store=Store("", "9999")),
        Level.WRONG,
    ),
    "database that does not add up": (
        judge_service.database,
        replace(FINE, store=STORE._replace(findings=("account 7 counts 3 messages and has 2",))),
        Level.WRONG,
    ),
    "no account": (judge_service.accounts, replace(FINE, store=STORE._replace(accounts=0)), Level.WRONG),
    "no domain": (judge_service.accounts, replace(FINE, store=STORE._replace(domains=())), Level.WRONG),
    "housekeeping in time": (judge_service.housekeeping, FINE, Level.FINE),
    "housekeeping late": (
        judge_service.housekeeping,
        replace(FINE, store=STORE._replace(last_housekeeping=NOW - timedelta(days=2))),
        Level.WARNING,
    ),
}


@pytest.mark.parametrize("case", BOXES)
def test_each_fact_has_its_verdict(case: str) -> None:
    judge, facts, level = BOXES[case]
    found = list(judge(facts))
    assert [each.level for each in found] == [level]
    assert all(each.why and each.mend for each in found if each.level >= Level.ADVICE)


def test_a_database_of_a_newer_program_is_not_to_be_upgraded() -> None:
    (told,) = judge_service.database(replace(FINE, store=Store("", "9999")))
    assert "newer than this program's" in told.what
    assert "Install the newer mailstack" in told.mend


def test_a_port_of_another_program_is_told_with_the_command_that_stops_it() -> None:
    port = Port("smtp", "[::]:25", 25, True, True, "master (process 812)", False)
    (found,) = judge_machine.free_ports(replace(FINE, ports=(port,)))
    assert found.level is Level.WRONG
    assert "held by master (process 812)" in found.what
    assert found.mend == "systemctl disable --now postfix; then run mailstack setup again"
    for changes in ({"ours": True}, {"held": False}):
        assert levels(judge_machine.free_ports, replace(FINE, ports=(port._replace(**changes),))) == [
            Level.FINE
        ]


def test_a_port_that_systemd_holds_is_ours_if_a_socket_unit_of_ours_is_up() -> None:
    port = Port("smtp", "[::]:25", 25, True, True, "systemd (process 1)", None)
    socket_unit = Unit("mailstack-smtp.socket", "loaded", "active", "listening", "enabled", "success")
    service = Service((), (), (socket_unit,), {})
    assert levels(judge_machine.free_ports, replace(FINE, ports=(port,), service=service)) == [Level.FINE]
    assert levels(judge_machine.free_ports, replace(FINE, ports=(port,))) == [Level.WRONG]


UNITS: Final = {
    "up": (("mailstack@smtp.service", "loaded", "active", "running", "enabled", "success"), Level.FINE),
    "failed": (("mailstack@smtp.service", "loaded", "failed", "failed", "enabled", "exit-code"), Level.WRONG),
    "not enabled": (
        ("mailstack-smtp.socket", "loaded", "active", "listening", "disabled", ""),
        Level.WARNING,
    ),
    "down": (("mailstack-backup.timer", "loaded", "inactive", "dead", "enabled", ""), Level.WARNING),
    "waiting for its timer": (
        ("mailstack-backup.service", "loaded", "inactive", "dead", "static", ""),
        Level.FINE,
    ),
    "off, as it comes": (("mailstack-lmtp.socket", "loaded", "inactive", "dead", "disabled", ""), Level.FINE),
    "off until it is needed": (
        ("mailstack-acme.socket", "loaded", "inactive", "dead", "static", ""),
        Level.FINE,
    ),
    "masked": (("mailstack-smtp.socket", "masked", "inactive", "dead", "masked", ""), Level.WARNING),
}


@pytest.mark.parametrize("case", UNITS)
def test_each_state_of_a_unit_has_its_verdict(case: str) -> None:
    unit, level = UNITS[case]
    assert levels(judge_service.units, replace(FINE, service=Service((), (), (Unit(*unit),), {}))) == [level]


@pytest.mark.parametrize(
    ("load", "active", "enabled", "level"),
    [
        ("loaded", "inactive", "disabled", Level.FINE),
        ("masked", "inactive", "masked", Level.FINE),
        ("loaded", "inactive", "enabled", Level.WARNING),
        ("loaded", "active", "enabled", Level.WARNING),
        ("loaded", "active", "disabled", Level.WARNING),
    ],
)
def test_a_port_without_an_address_in_the_settings_is_to_be_off(
    load: str, active: str, enabled: str, level: Level
) -> None:
    service = Service((), (), (Unit("mailstack-smtp.socket", load, active, "", enabled, ""),), {})
    settings = replace(FINE.settings, smtp=Smtp(listen=()))
    (found,) = judge_service.units(replace(FINE, settings=settings, service=service))
    assert found.level is level
    if level is Level.WARNING:
        assert "smtp.listen names no address" in found.what
        assert found.mend.startswith("systemctl disable --now mailstack-smtp.socket; ")


def test_a_socket_is_opened_together_with_a_start_of_its_service() -> None:
    # systemd opens none for a service that runs, as that of the other port of POP3 does.
    socket_unit = Unit("mailstack-smtp.socket", "loaded", "inactive", "dead", "disabled", "")
    timer = socket_unit._replace(name="mailstack-backup.timer")
    found = judge_service.units(replace(FINE, service=Service((), (), (socket_unit, timer), {})))
    assert [each.mend for each in found] == [
        "systemctl enable mailstack-smtp.socket; systemctl restart mailstack-smtp.socket",
        "systemctl enable --now mailstack-backup.timer",
    ]


def test_what_systemctl_shows_is_read_in_any_order() -> None:
    shown = "Id=mailstack.target\nActiveState=active\n\nActiveState=failed\nId=a.service\nResult=x=y\n"
    assert [(each.name, each.active, each.result) for each in units.read(shown)] == [
        ("mailstack.target", "active", ""),
        ("a.service", "failed", "x=y"),
    ]


def test_a_session_that_holds_a_maildrop_for_a_day_and_is_silent_is_stuck() -> None:
    held = Session("s1", "jo@example.org", "192.0.2.9", NOW - timedelta(days=1), 3600.0)
    busy = held._replace(session="s2", idle_seconds=1.0)
    service = Service((Process(7, ("pop3",), 4096),), (held, busy), None, {})
    (found,) = judge_service.locks(replace(FINE, service=service))
    assert (found.level, found.mend) == (Level.WARNING, "mailstack session kick s1")
    few = service._replace(processes=(Process(7, ("pop3",), 1024),), sessions=())
    assert levels(judge_service.locks, replace(FINE, service=few)) == [Level.FINE]
    assert levels(judge_machine.open_files, replace(FINE, service=few)) == [Level.WARNING]
    assert levels(judge_machine.open_files, replace(FINE, service=service)) == [Level.FINE]


def test_a_worker_needs_files_for_its_part_of_the_connections() -> None:
    worker = Process(7, ("pop3", "pop3s"), 4000)  # and max_connections allows 2000 to each of the two
    for workers, level in (((worker,), Level.WARNING), ((worker, worker._replace(pid=8)), Level.FINE)):
        facts = replace(FINE, service=Service(workers, (), None, {}))
        assert levels(judge_machine.open_files, facts) == [level]


def test_root_is_named_where_it_may_ask_the_service_and_not_where_that_does_not_answer() -> None:
    for problem, why in (
        (Unseen("control: no"), "Root may look: run this as root (sudo)."),
        ("it does not answer", ""),
    ):
        (found,) = judge_service.processes(replace(FINE, service=Service(None, (), None, {}, problem)))
        assert found == unknown("service", f"its processes could not be asked: {problem}", why)


def test_the_holder_of_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        holder = ports.holder_of(port)
        assert holder is not None
        assert holder.pid == os.getpid()
        settings = Settings(hostname=HOST, smtp=Smtp(listen=(TcpAddress("127.0.0.1", port),)))
        seen = next(each for each in ports.look(settings) if each.role == "smtp" and each.port == port)
        assert (seen.held, seen.answers) == (True, False)  # nobody greets
        assert f"(process {os.getpid()})" in seen.holder
    assert ports.holder_of(port) is None


@pytest.mark.parametrize(("greeting", "answers"), [(b"220 mail\r\n", True), (b"+OK\r\n", False)])
def test_who_greets_in_another_protocol_does_not_answer(greeting: bytes, answers: bool) -> None:
    def greet(listening: socket.socket) -> None:
        with listening.accept()[0] as accepted:
            accepted.sendall(greeting)

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as other:
        other.submit(greet, listening)
        place = TcpAddress(*listening.getsockname())
        (seen,) = ports.look(Settings(hostname=HOST, smtp=Smtp(listen=(place,)), pop3=Pop3(listen=())))
    assert (seen.held, seen.answers) == (True, answers)


def test_the_machine_is_seen(tmp_path: Path) -> None:
    seen = machine.look(tmp_path / "not" / "there" / "yet", tmp_path)
    assert seen.memory is not None
    assert 0 < seen.memory.available <= seen.memory.total
    assert seen.state_disk is not None
    assert seen.backup_disk is not None
    assert seen.state_disk.device == seen.backup_disk.device
    assert seen.clock_is_synchronised in (True, False, None)
    assert machine.memory(tmp_path / "none") is None


def test_the_full_name_is_that_of_the_file_hosts(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 mail.example.org mail # ours\n")
    assert machine.full_name("mail", tmp_path / "hosts") == "mail.example.org"
    assert machine.full_name("box", tmp_path / "hosts") == "box"
    assert machine.full_name("mx.example.net", tmp_path / "none") == "mx.example.net"


def test_a_resolver_that_answers_some_questions_is_told_with_the_first_that_it_did_not() -> None:
    names = {("a.example", "A"): Answer(), ("a.example", "MX"): Answer(problem="no answer")}
    (found,) = judge_names.resolver(replace(FINE, names=names))
    assert found.what == "1 of 2 questions had no answer; a.example MX: no answer"


def test_every_check_has_a_name_of_its_own_and_says_nothing_of_what_nobody_looked_at() -> None:
    names = [check.name for check in table.CHECKS]
    assert len(set(names)) == len(names)
    said = table.afterwards(Facts(NOW, Settings(hostname=HOST)))
    assert {each.check for each in said if each.finding.level > Level.UNKNOWN} == set()
