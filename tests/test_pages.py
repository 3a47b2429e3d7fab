"""The pages of the repository lead somewhere, and what they promise to be complete is."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mailstack.cli import app
from mailstack.settings import load

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
CONSTRAINTS = (ROOT / "requirements" / "constraints.txt").read_text()

_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page: Path, language: str) -> Iterator[str]:
    """The page's code blocks of one language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def requirements() -> dict[str, Requirement]:
    """All that pyproject.toml asks for, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [
        *project["dependencies"],
        *(each for group in project["optional-dependencies"].values() for each in group),
    ]
    return {canonicalize_name(Requirement(each).name): Requirement(each) for each in asked}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if not link.startswith("http"):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def refusal(words: list[str]) -> str | None:
    """What the command line would say against the words' command and options, nothing if it knows them."""
    command: Any = app.tree()
    options = {name for parameter in command.params for name in parameter.opts + parameter.secondary_opts}
    for word in words:
        if hasattr(command, "commands") and not word.startswith("-"):
            if word not in command.commands:
                return f"no command {word}"
            command = command.commands[word]
            options |= {
                name for parameter in command.params for name in parameter.opts + parameter.secondary_opts
            }
        elif word.startswith("--") and word not in options:
            return f"no option {word}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_to_paste_exist(page: Path) -> None:
    for block in blocks(page, "sh"):
        for command in re.findall(r"^(?:.*-c ')?mailstack (.+?)'?$", block, re.MULTILINE):
            words = shlex.split(command, comments=True)
            assert refusal(words) is None, command


def test_settings_to_paste_are_accepted(tmp_path: Path) -> None:
    (example,) = blocks(ROOT / "docs" / "install.md", "toml")
    (tmp_path / "mailstack.toml").write_text(example)
    assert load(tmp_path / "mailstack.toml", {}).url == "postgresql:///mailstack"


def test_page_of_dependencies_names_each_one_and_no_other() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    first_cells = re.findall(r"^\| ([\w ,.-]+?)(?: \(.*?\))? \|", page, re.MULTILINE)
    named = {canonicalize_name(name) for cell in first_cells for name in cell.split(", ")} - {"package"}
    assert named == set(requirements())


def test_constraints_pin_each_dependency_to_an_allowed_version_and_name_no_place() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", CONSTRAINTS, re.MULTILINE))
    versions = {canonicalize_name(name): version for name, version in pinned.items()}
    assert len(pinned) == sum(not line.startswith("#") for line in CONSTRAINTS.splitlines())
    for name, requirement in requirements().items():
        assert requirement.specifier.contains(versions[name]), name


def test_system_packages_are_listed_in_one_place() -> None:
    listed = re.findall(
        r"^(run|test) +(\S+)", (ROOT / "requirements" / "debian.txt").read_text(), re.MULTILINE
    )
    assert {purpose for purpose, _ in listed} == {"run", "test"}
    for place in (ROOT / "Makefile", ROOT / ".ci" / "run"):
        assert "apt-get" not in place.read_text()
