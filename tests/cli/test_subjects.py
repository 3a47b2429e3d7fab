"""A command reads its own subject and the libraries that it works with, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mailstack.cli import subjects
from tests.cli.conftest import CommandLine

LIBRARIES = {
    "acme", "alembic", "asyncio", "cryptography", "dns", "nacl", "passlib", "psycopg", "pydantic", "rich",
    "sqlalchemy", "typer", "uvloop",
}  # fmt: skip

READ = """
import sys
from mailstack.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sys.modules, file=sys.stderr)
"""


def read_by(*arguments: object) -> set[str]:
    """The modules that a command has imported when it ends."""
    command = [sys.executable, "-c", READ, *map(str, arguments)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split())


def ours(modules: set[str]) -> set[str]:
    """Those of the command line."""
    return {each.removeprefix("mailstack.cli.") for each in modules if each.startswith("mailstack.cli.")}


def test_help_reads_no_subject() -> None:
    modules = read_by("--help")
    assert ours(modules) == {"admin", "app", "exits", "serve", "subjects"}
    found = {each for each in modules if each.startswith(("mailstack.store", "mailstack.service"))}
    assert found == {"mailstack.service", "mailstack.service.roles"}  # what serve can do: a table, no more
    assert modules & LIBRARIES == {"rich", "typer"}


def test_the_help_of_a_subject_reads_that_one() -> None:
    modules = read_by("settings", "--help")
    assert "settings" in ours(modules)
    assert ours(modules).isdisjoint(subjects.SUBJECTS.keys() - {"settings"})
    assert modules & LIBRARIES == {"pydantic", "rich", "typer"}


@pytest.mark.parametrize(
    ("words", "libraries"),
    [
        ("settings show", set()),
        ("session list", {"asyncio"}),
        ("account list", {"asyncio", "sqlalchemy"}),
        ("domain list", {"asyncio", "sqlalchemy"}),
        ("alias list", {"asyncio", "sqlalchemy"}),
        ("status", {"asyncio", "cryptography", "sqlalchemy"}),
    ],
)
def test_a_command_imports_the_libraries_that_it_works_with(
    mailstack: CommandLine, words: str, libraries: set[str]
) -> None:
    modules = read_by("--config", mailstack.file, *words.split())
    assert modules & LIBRARIES == libraries | {"pydantic", "typer"}  # which Typer brings along


@pytest.mark.parametrize("name", subjects.SUBJECTS)
def test_the_list_of_all_says_of_a_subject_what_it_says_of_itself(name: str) -> None:
    said: str = subjects.read(name).help
    assert " ".join(said.partition("\n\n")[0].split()) == subjects.SUBJECTS[name]


def test_every_module_with_commands_is_in_the_list() -> None:
    folder = Path(subjects.__file__).parent
    texts = {each.stem: each.read_text() for each in folder.glob("*.py")}
    groups = {name for name, text in texts.items() if "\napp = typer.Typer(" in text}
    single = {name for name, text in texts.items() if f"\ndef {name}(" in text and "\nEXAMPLE = " in text}
    assert (groups - {"app"}) | single == subjects.SUBJECTS.keys()
