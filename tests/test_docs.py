"""The pages for administrators say what the program does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mailstack.cli import app, exits
from mailstack.settings import KEYS, SECTIONS, load

DOCS = Path(__file__).parents[1] / "docs"


def rows_of_settings() -> dict[str, tuple[str, str]]:
    """The page's tables: a key's dotted name, its default and its meaning."""
    found: dict[str, tuple[str, str]] = {}
    section = None
    for line in (DOCS / "settings.md").read_text().splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
            table = re.fullmatch(r"\[(\w+)\]", heading)
            section = table[1] if table else "" if heading == "Above all tables" else None
        elif section is not None and (row := re.fullmatch(r"\| `(\w+)` \| (.+?) \| (.+) \|", line)):
            found[f"{section}.{row[1]}".removeprefix(".")] = row[2], row[3]
    return found


def test_the_page_of_settings_has_every_key_in_order_and_no_other() -> None:
    assert list(rows_of_settings()) == list(KEYS)


@pytest.mark.parametrize("name", KEYS)
def test_default_and_meaning_are_those_of_the_code(name: str) -> None:
    default, meaning = rows_of_settings()[name]
    assert meaning == KEYS[name].meaning
    if KEYS[name].default is not None:
        assert default == f"`{json.dumps(KEYS[name].default)}`"


def test_every_table_is_introduced_by_its_own_words() -> None:
    page = (DOCS / "settings.md").read_text()
    for section, shape in SECTIONS.items():
        assert not section or f"## [{section}]\n\n{shape.__doc__}\n" in page


def test_the_example_of_the_page_is_accepted(tmp_path: Path) -> None:
    page = (DOCS / "settings.md").read_text()
    example = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    (tmp_path / "mailstack.toml").write_text(example[1])
    assert load(tmp_path / "mailstack.toml", {}).smtp.max_message_octets == 25 << 20


def test_every_exit_code_is_explained() -> None:
    page = (DOCS / "accounts.md").read_text()
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert explained == set(exits.EXITS.values()) | {0}


def test_the_page_of_accounts_names_commands_that_exist() -> None:
    page = (DOCS / "accounts.md").read_text()
    named = set(re.findall(r"(?:mailstack |`)(account|alias|domain|database|settings) ([a-z]+)", page))
    tree = app.tree()
    there = {(group, name) for group, each in tree.commands.items() for name in getattr(each, "commands", {})}
    assert len(named) > 15
    assert named <= there
