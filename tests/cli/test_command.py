"""The real command: its help, its exit codes, its prompts, its manners with pipes and users."""

from __future__ import annotations

import errno
import os
import pty
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack import __version__, errors, log
from mailstack.cli import app, exits, serve
from tests.cli.conftest import CommandLine

COMMAND = [sys.executable, "-m", "mailstack"]


def test_every_command_has_help_with_an_example(mailstack: CommandLine) -> None:
    names = list(_commands(app.tree()))
    assert len(names) > 25
    for name in names:
        helped = mailstack.good(*name, "--help")
        assert "Example: " in helped.out, name
        assert " ".join(("mailstack", *name)) in " ".join(helped.out.split()), name
        assert mailstack.good(*name, "-h") == helped, name


def test_help_begins_with_what_is_used_every_day() -> None:
    inner = app.tree().commands
    firsts = {name: next(iter(inner[name].commands)) for name in ("account", "domain", "maildrop")}
    assert firsts == {"account": "add", "domain": "add", "maildrop": "list"}


def test_what_is_said_of_options_and_arguments_is_shown_to_the_letter(
    mailstack: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 400)
    tree = app.tree()
    for name in _commands(tree):
        command = tree
        for word in name:
            command = command.commands[word]
        shown = mailstack.good(*name, "--help").out
        for each in command.params:
            assert (getattr(each, "help", None) or "") in shown, (name, each.name)


def _commands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path
        return
    for name, each in inner.items():
        yield from _commands(each, (*path, name))


def test_without_a_command_help_is_shown(mailstack: CommandLine) -> None:
    shown = mailstack("account")
    assert shown.code == 64
    assert "Usage: mailstack" in shown.out + shown.err
    assert mailstack().err == "mailstack: Missing command; see mailstack --help\n"


def test_the_version_is_that_of_the_package(mailstack: CommandLine) -> None:
    assert mailstack.good("--version").out == f"mailstack {__version__}\n"


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("mailstack acc", ["account"]),
        ("mailstack account pa", ["passwd"]),
        ("mailstack status --j", ["--json"]),
    ],
)
def test_shells_can_complete_commands(words: str, completed: list[str]) -> None:
    asking = {
        "_MAILSTACK_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    program = "from mailstack.cli import main; raise SystemExit(main([]))"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **asking}
    )
    assert ran.stdout.split() == completed


@pytest.mark.parametrize(
    ("arguments", "understood"),
    [
        (["serve"], ((), 1)),
        (["--config", "x.toml", "serve", "smtp", "pop3", "--workers", "2"], (("smtp", "pop3"), 2)),
        (["--config=x.toml", "--debug", "serve", "--workers=3", "lmtp", "lmtp"], (("lmtp",), 3)),
        (["serve", "pop3", "--workers", "auto"], (("pop3",), min(len(os.sched_getaffinity(0)), 4))),
        (["account", "add", "serve"], None),
        (["--config", "serve", "status"], None),
        (["serve", "--help"], None),
        (["serve", "smtp", "-h"], None),
        ([], None),
    ],
)
def test_serve_is_told_from_the_rest_without_typer(arguments: list[str], understood: object) -> None:
    found = serve.understood(arguments)
    assert (None if found is None else (found.roles, found.workers)) == understood


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("serve", "imap"),
            "there is no role imap; there are smtp, lmtp, pop3, metrics, housekeeping; see",
        ),
        (("serve", "--workers", "0"), "0 is neither auto nor a number of processes from 1 to 64"),
        (
            ("serve", "--worker", "2"),
            "unrecognized arguments: --worker; --workers takes auto or a number of processes from 1 to 64,"
            " and of roles there are smtp, lmtp, pop3, metrics, housekeeping; see mailstack serve --help",
        ),
        (("serve", "--frob"), "unrecognized arguments: --frob"),
        (("--frob", "serve"), "unrecognized arguments: --frob"),
    ],
)
def test_a_wrong_serve_is_one_sentence(mailstack: CommandLine, arguments: tuple[str, ...], said: str) -> None:
    refused = mailstack(*arguments)
    assert refused.code == 64
    assert refused.err.startswith("mailstack: ")
    assert said in refused.err
    assert refused.err.count("\n") == 1


def test_the_process_that_stays_imports_no_more_than_it_needs() -> None:
    """Nothing of the command line; and of passwords and databases, what is not used here."""
    program = (
        "import sys; from mailstack.cli import serve, main;"
        "import mailstack.service.start, mailstack.service.smtp, mailstack.service.pop3;"
        "main(['--config', '/nowhere.toml', 'serve']);"
        "print(*(sys.modules.keys() & set(sys.argv[1:])))"
    )
    unwanted = ["typer", "rich", "alembic", "click", "pydantic", "passlib", "argon2", "psycopg"]
    unwanted.append("sqlalchemy.dialects.postgresql")
    ran = subprocess.run(
        [sys.executable, "-c", program, *unwanted], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "\n"
    assert "/nowhere.toml: the settings file cannot be read" in ran.stderr


def test_every_error_that_can_be_named_has_an_exit_code() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    codes = {each.__name__: exits.exit_code(each("")) for each in kinds}
    assert set(codes.values()) <= {65, 67, 69, 70, 73, 75, 78}
    assert [name for name, code in codes.items() if code == 70] == ["MailstackError"]
    assert (codes["BadSetting"], codes["StoreUnavailable"], codes["MaildropInUse"]) == (78, 69, 75)


def test_a_fault_of_ours_is_a_sentence_and_with_debug_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    def fault() -> int:
        raise ZeroDivisionError("division by zero")

    assert exits.obey(fault, debug=False) == 70
    assert capsys.readouterr().err.splitlines() == [
        "mailstack: this is a fault of mailstack (mailstack --debug tells more):"
        " ZeroDivisionError: division by zero"
    ]
    assert exits.obey(fault, debug=True) == 70
    assert "Traceback" in capsys.readouterr().err


def test_what_the_service_would_log_is_told_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    damage = errors.StoreDamaged("the database is damaged")
    with exits.told(debug=False):
        for _ in range(2):  # as many pages as are lost
            log.failure("removal of content", damage)
    assert capsys.readouterr().err == "mailstack: removal of content: the database is damaged\n"


def test_who_was_refused_is_said() -> None:  # root's commands become the owner of the mail
    name = pwd.getpwuid(os.geteuid()).pw_name
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/root/bk")
    assert exits.sentence(refused) == f"/root/bk: Permission denied to the user {name}"
    assert exits.sentence(OSError(errno.ENOTDIR, "Not a directory", "/x")) == "/x: Not a directory"


def test_what_mends_a_refusal_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(began_as: int, place: Path | str) -> str:
        monkeypatch.setattr(os, "geteuid", lambda: began_as)

        def refused() -> int:
            monkeypatch.undo()  # by now root is somebody else
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))

        assert exits.obey(refused, debug=False) == os.EX_NOPERM
        return capsys.readouterr().err

    assert told(1000, tmp_path / "x").endswith("; run this as root (sudo)\n")
    name = exits.myself()
    assert told(0, tmp_path / "x").endswith(f"; make it first: install -d -o {name} {tmp_path}/x\n")
    assert told(0, tmp_path / "a.mbox").endswith(f"install -d -o {name} {tmp_path}/FOLDER\n")
    assert told(0, tmp_path).endswith(f"denied to the user {name}\n")


def test_a_service_that_may_not_write_says_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    # As systemd has it (ProtectSystem=), though the disk can be written.
    exits.complain(OSError(errno.EROFS, os.strerror(errno.EROFS), "/srv/copies"), 0)
    said = "/srv/copies: Read-only file system; if the disk is not, the service's unit keeps it from writing"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("account list >&-", 0),
        ("account list --json >&- 2>&-", 0),
        ("status >&-", 69),
        ("account passwd jo <&-", 0),
        ("account passwd jo --password-stdin <&-", 65),
        ("account remove jo <&-", 64),
        ("account import - <&-", 65),
    ],
)
def test_what_the_shell_has_closed_is_no_fault(mailstack: CommandLine, command: str, code: int) -> None:
    mailstack.good("account", "add", "jo")
    words = " ".join([*COMMAND, "--config", str(mailstack.file), command])
    ran = subprocess.run(["bash", "-c", words], capture_output=True, text=True)
    assert (ran.returncode, "fault" in ran.stderr) == (code, False), ran.stderr


def test_a_pipe_that_closes_is_no_error(mailstack: CommandLine) -> None:
    mailstack.good("account", "add", "jo")
    command = " ".join([*COMMAND, "--config", str(mailstack.file), "settings", "show"])
    script = f"set -o pipefail; {command} | true"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_environment_names_the_settings_file(mailstack: CommandLine) -> None:
    environ = {**os.environ, "MAILSTACK_CONFIG": str(mailstack.file)}
    ran = subprocess.run([*COMMAND, "domain", "list", "--json"], capture_output=True, text=True, env=environ)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert '"example.org"' in ran.stdout


def test_a_person_is_asked_for_the_password_twice(mailstack: CommandLine) -> None:
    said = _on_a_terminal(mailstack, ["account", "add", "jo"], [b"secret\n", b"secret\n"])
    assert "Password (empty: one is made up): " in said
    assert "The same again: " in said
    assert "jo@example.org can receive and fetch mail now" in said
    assert "secret" not in said
    said = _on_a_terminal(mailstack, ["account", "add", "kim"], [b"secret\n", b"other\n"])
    assert "the two passwords differ" in said
    said = _on_a_terminal(mailstack, ["account", "add", "kim"], [b"\n"])
    assert re.search(r"password: \S{19}\r\n", said)


def test_a_person_is_asked_before_mail_is_removed(mailstack: CommandLine) -> None:
    mailstack.good("account", "add", "jo")
    said = _on_a_terminal(mailstack, ["account", "remove", "jo"], [b"n\n"])
    assert "Remove jo@example.org with 0 messages (0 B) for good? [y/N]" in said
    assert "mailstack: nothing was changed" in said
    said = _on_a_terminal(mailstack, ["account", "remove", "jo"], [b"yes\n"])
    assert "jo@example.org is gone" in said


def test_a_person_sees_how_far_an_import_is(mailstack: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("address,password\n" + "".join(f"u{n}@example.org,secret\n" for n in range(30)))
    said = _on_a_terminal(mailstack, ["account", "import", str(file)], [])
    assert "hashing passwords" in said
    assert "%" in said
    assert "30 accounts can receive and fetch mail now" in said


def test_a_terminal_gets_a_table_whose_cells_are_no_markup(mailstack: CommandLine) -> None:
    mailstack.good("account", "add", '"[red]jo[/red]"@example.org')
    said = _on_a_terminal(mailstack, ["account", "list"], [])
    assert "[red]jo[/red]" in said
    assert "───" in said


def _on_a_terminal(mailstack: CommandLine, arguments: list[str], answers: list[bytes]) -> str:
    """Run the command with a terminal of its own; answer each question as it comes."""
    master, slave = pty.openpty()
    # getpass asks on the controlling terminal, whatever standard input is.
    command = ["setsid", "--ctty", "--wait", *COMMAND, "--config", str(mailstack.file), *arguments]
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "COLUMNS": "200", "TERM": "xterm"},
    )
    os.close(slave)
    said = b""
    waiting = list(answers)
    while True:
        try:
            octets = os.read(master, 4096)
        except OSError:  # the last one who had the terminal open is gone
            break
        said += octets
        if waiting and re.search(rb"(\): |again: |\[y/N\]\r\n)$", said):
            time.sleep(0.05)  # getpass flushes what was typed before it asked
            os.write(master, waiting.pop(0))
    process.wait()
    os.close(master)
    return said.decode()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_the_owner_of_the_state_directory(mailstack: CommandLine) -> None:
    folder = Path("/tmp") / f"mailstack-test-{os.getpid()}"
    shutil.copytree(mailstack.file.parent, folder)
    try:
        for each in (folder, *folder.rglob("*")):
            shutil.chown(each, "nobody", "nogroup")
        config = ["--config", str(folder / "mailstack.toml")]
        subprocess.run([*COMMAND, *config, "domain", "add", "a.example"], check=True, capture_output=True)
        owners = {each.stat().st_uid for each in (folder / "state").iterdir()}
        assert owners == {folder.stat().st_uid}
        program = (
            "import os, sys; from pathlib import Path; from mailstack.cli.admin import become_owner;"
            "become_owner(Path(sys.argv[1])); print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups())"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program, str(folder / "state")], capture_output=True, text=True, check=True
        )
        owner = folder.stat()
        assert ran.stdout == f"{owner.st_uid} {owner.st_uid} {owner.st_gid} [{owner.st_gid}]\n"
    finally:
        shutil.rmtree(folder)
