"""systemd's units, as systemd itself judges them: verified, and with the exposure that is promised."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mailstack.cli import app, units
from mailstack.cli.units import Places
from mailstack.service.roles import ROLES

MOST_EXPOSED = {
    "mailstack@smtp.service": 0.2,
    "mailstack@pop3.service": 0.2,
    "mailstack@lmtp.service": 0.2,
    "mailstack@metrics.service": 0.2,
    "mailstack-housekeeping.service": 0.2,
    "mailstack-backup.service": 0.2,
    "mailstack-doctor.service": 1.1,
    "mailstack-acme.service": 1.1,
}
"""What `systemd-analyze security` may say of each service, on its scale from 0 to 10."""

SOURCE = units.source()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with the units of a package and nothing else."""
    made = tmp_path_factory.mktemp("root")
    units.write(Places.of_package(made))
    return made


def parsed(name: str) -> configparser.RawConfigParser:
    """A unit's sections; of a key that is there several times, the last one."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((SOURCE / name).read_text())
    return parser


def names(suffix: str) -> list[str]:
    return sorted(each.name for each in SOURCE.glob(f"*{suffix}"))


@pytest.mark.parametrize("service", MOST_EXPOSED)
def test_a_service_is_as_little_exposed_as_promised(service: str, root: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--root={root}", service],
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = re.search(r"Overall exposure level for (\S+): ([\d.]+) ", done.stdout)
    assert found is not None, done.stderr
    assert found[1] == service
    assert float(found[2]) <= MOST_EXPOSED[service], done.stdout


def test_no_service_is_without_a_promise() -> None:
    promised = {re.sub(r"@\w+", "@", name) for name in MOST_EXPOSED}
    assert promised == set(names(".service"))


def test_systemd_finds_no_fault_with_any_unit(tmp_path: Path) -> None:
    places = Places(tmp_path / "units", tmp_path / "sysusers.d", tmp_path / "tmpfiles.d")
    units.write(places, units.this_program())
    instances = [name for name in MOST_EXPOSED if "@" in name]
    plain = [each.name for each in places.units.iterdir() if each.is_file() and "@" not in each.name]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", *instances, *sorted(plain)],
        capture_output=True,
        text=True,
        timeout=60,
        # The colon at the end stands for the folders of the system: our units need some of its own.
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{places.units}:"},
    )
    assert len(plain) > 8
    about_ours = [line for line in done.stderr.splitlines() if "mailstack" in line]
    assert about_ours == []


@pytest.mark.parametrize("name", names(".service"))
def test_a_unit_runs_commands_that_exist(name: str) -> None:
    tree = app.tree()
    lines = re.findall(r"^Exec\w+=(/usr/bin/mailstack .*)$", (SOURCE / name).read_text(), re.MULTILINE)
    assert lines
    for line in lines:
        command = tree
        for word in shlex.split(line)[1:]:
            if not hasattr(command, "commands"):
                break
            command = command.commands[word]


def test_each_socket_is_handed_over_by_the_name_of_its_role() -> None:
    for name in names(".socket"):
        unit = parsed(name)["Socket"]
        assert f"mailstack-{unit['FileDescriptorName']}.socket" == name
        if unit["Service"] == name.replace(".socket", ".service"):
            assert f"Sockets={name}" in (SOURCE / unit["Service"]).read_text()
            continue
        role = re.fullmatch(r"mailstack@(\w+)\.service", unit["Service"])
        assert role is not None
        assert role[1] in ROLES


def test_a_service_starts_the_sockets_that_are_enabled_and_no_other() -> None:
    for name in names(".socket"):
        if (service := parsed(name)["Socket"]["Service"]).startswith("mailstack@"):
            assert parsed(name)["Install"]["WantedBy"].split() == ["mailstack.target", service]
    for name in ("mailstack@.service", "pop3.conf"):  # these would open a port that was switched off
        assert not re.search(r"^(Sockets|Wants|Requires|BindsTo)=.*socket", (SOURCE / name).read_text(), re.M)


def test_a_service_ends_with_each_of_its_sockets() -> None:
    # A process that runs keeps the port that it has, and systemd opens no other for it.
    assert "mailstack-%i.socket" in parsed("mailstack@.service")["Unit"]["PartOf"].split()
    assert parsed("pop3.conf")["Unit"]["PartOf"] == "mailstack-pop3s.socket"


def test_no_socket_goes_down_with_its_service() -> None:
    # A restart would close it: what waits in the kernel's queue would be refused.
    for name in names(".socket"):
        assert not {"PartOf", "BindsTo", "Requires"} & set(parsed(name)["Unit"])


def test_the_page_on_systemd_has_every_unit_and_no_other() -> None:
    page = (SOURCE.parent / "docs" / "systemd.md").read_text()
    told = set(re.findall(r"`(mailstack[\w@-]*\.(?:socket|timer|service|target))`", page))
    by_timer = {name.replace(".timer", ".service") for name in names(".timer")}
    templates = {re.sub(r"@\w+", "@", name) for name in told}
    shipped = {*names(".socket"), *names(".timer"), *names(".service"), *names(".target")}
    assert templates - by_timer == shipped - by_timer


def test_every_password_may_be_a_file_that_only_root_can_read() -> None:
    sandbox = (SOURCE / "sandbox.conf").read_text()
    assert "LoadCredential=mailstack:/etc/mailstack/credentials\n" in sandbox
    assert "d /etc/mailstack/credentials 0700 root root\n" in (SOURCE / "tmpfiles.conf").read_text()


def test_a_program_in_a_home_is_all_of_it_that_can_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", "/root/.local/share/pipx/venvs/mailstack")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    units.write(Places.of_administrator(tmp_path), units.this_program())
    folder = tmp_path / "etc/systemd/system"
    drop_in = (folder / "mailstack@.service.d/20-program.conf").read_text()
    assert "ExecPaths=/root/.local/share/pipx/venvs/mailstack\n" in drop_in
    assert "BindReadOnlyPaths=/root/.local/share/pipx/venvs/mailstack\n" in drop_in
    assert "ProtectHome=tmpfs\n" in drop_in
    start = re.findall(r"^ExecStart=(\S+)", (folder / "mailstack@.service").read_text(), re.MULTILINE)
    assert start == ["/root/.local/share/pipx/venvs/mailstack/bin/mailstack"]


def test_the_nightly_backup_takes_folder_and_number_from_the_settings() -> None:
    lines = re.findall(r"^ExecStart=(.*)$", (SOURCE / "mailstack-backup.service").read_text(), re.MULTILINE)
    assert lines == ["/usr/bin/mailstack database backup", "/usr/bin/mailstack backup verify"]


def test_the_nightly_backup_needs_no_folder_that_it_does_not_write_to() -> None:
    # Without the hyphen systemd does not start it where there is none (226/NAMESPACE).
    assert parsed("mailstack-backup.service")["Service"]["ReadWritePaths"] == "-/var/backups/mailstack"


def test_the_nightly_backup_may_write_where_the_settings_send_it(tmp_path: Path) -> None:
    places = Places.of_administrator(tmp_path)
    units.write(places)
    drop_in = places.units / "mailstack-backup.service.d/30-folder.conf"
    assert units.admit_backups(places, Path("/var/backups/mailstack")) == []
    assert units.admit_backups(places, Path("/srv/100% mail")) == [drop_in]
    assert units.admit_backups(places, Path("/srv/100% mail")) == []
    assert drop_in.read_text().splitlines()[1:] == [
        "[Unit]",
        'RequiresMountsFor="/srv/100%% mail"',
        "",
        "[Service]",
        'ReadWritePaths="/srv/100%% mail"',
    ]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", "mailstack-backup.service"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "30-folder.conf" not in done.stderr
    assert units.admit_backups(places, Path("/var/backups/mailstack")) == [drop_in]
    assert not drop_in.exists()


def test_a_program_of_the_system_needs_no_drop_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/opt/mailstack")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    drop_in = units.unit_files(units.this_program())["mailstack-.service.d/20-program.conf"]
    assert drop_in.endswith("ExecPaths=/opt/mailstack\n")
    assert "mailstack-.service.d/20-program.conf" not in units.unit_files()


def test_what_hides_the_files_of_the_package_is_found(tmp_path: Path) -> None:
    ours = Places.of_administrator(tmp_path)
    units.write(ours, Path("/opt/mailstack/bin/mailstack"))
    command = tmp_path / "usr/local/bin/mailstack"
    command.parent.mkdir(parents=True)
    command.touch()
    written = {each for each in tmp_path.rglob("*") if each.is_file()}
    assert units.leftovers(tmp_path) == []  # there is no package to hide
    units.write(Places.of_package(tmp_path))
    assert set(units.leftovers(tmp_path)) == written
    for each in written:
        each.unlink()
    (ours.units / "mailstack-pop3.socket").symlink_to("/dev/null")  # masked
    (ours.units / "mailstack@.service.d/override.conf").touch()
    assert units.leftovers(tmp_path) == []


def test_writing_again_changes_nothing_and_leaves_no_drafts(root: Path) -> None:
    before = {each: each.read_bytes() for each in root.rglob("*") if each.is_file()}
    assert units.write(Places.of_package(root)) == []
    assert {each: each.read_bytes() for each in root.rglob("*") if each.is_file()} == before
    changed = Places.of_package(root).units / "mailstack.target"
    changed.write_text("[Unit]\n")
    assert units.write(Places.of_package(root)) == [changed]
    assert {each: each.read_bytes() for each in root.rglob("*") if each.is_file()} == before
    assert units.packaged(root)
    assert not units.packaged(root / "elsewhere")
