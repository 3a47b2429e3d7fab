"""The manual pages: one a command, of what the command line says of itself, in clean roff."""

from __future__ import annotations

import subprocess

import pytest

from debian import man
from mailstack.cli import app
from mailstack.settings import KEYS

PAGES = man.pages("2026-01-31")


def test_every_command_has_a_page_with_each_of_its_options() -> None:
    commands = app.tree().commands
    assert set(PAGES) == {f"mailstack-{name}.1" for name in commands} | {"mailstack.1", "mailstack.toml.5"}
    for name, command in commands.items():
        text = PAGES[f"mailstack-{name}.1"].replace("\\-", "-")
        for each in [command, *getattr(command, "commands", {}).values()]:
            options = {max(one.opts, key=len) for one in each.params if one.param_type_name == "option"}
            assert [option for option in options - {"--help"} if option not in text] == []


def test_every_setting_is_in_the_page_of_settings() -> None:
    text = PAGES["mailstack.toml.5"].replace("\\-", "-")
    assert all(f"\\fB{key.name}\\fR" in text for key in KEYS.values())


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_clean_roff(name: str) -> None:
    command = ["groff", "-man", "-Tutf8", "-Kutf8", "-wall", "-P-cbou"]
    done = subprocess.run(command, input=PAGES[name], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "NAME" in done.stdout


def test_a_page_reads_as_a_person_would_expect() -> None:
    command = ["groff", "-man", "-Tascii", "-P-cbou"]
    done = subprocess.run(command, input=PAGES["mailstack-account.1"], capture_output=True, text=True)
    assert "mailstack account add" in done.stdout
    assert "Example:" in done.stdout
    assert "[bold]" not in done.stdout
