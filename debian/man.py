"""Manual pages out of the command line itself and the list of settings: what they say is what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from mailstack import __version__
from mailstack.cli import app
from mailstack.settings import KEYS, SECTIONS

_HIDDEN = frozenset({"help", "install_completion", "show_completion"})


def pages(day: str) -> dict[str, str]:
    """Every page by its file name; `day` is the date they carry, as 2026-01-31."""
    root = app.tree()
    commands: dict[str, Any] = root.commands
    made = {"mailstack.1": _overview(root, commands, day), "mailstack.toml.5": _settings(day)}
    for name, command in sorted(commands.items()):
        made[f"mailstack-{name}.1"] = _command(name, command, day)
    return made


def _overview(root: Any, commands: dict[str, Any], day: str) -> str:
    lines = [
        *_heading("mailstack", 1, day, root.help),
        ".SH SYNOPSIS",
        ".B mailstack",
        "[\\fIOPTION\\fR]... \\fICOMMAND\\fR [\\fIARGUMENT\\fR]...",
        ".SH COMMANDS",
    ]
    for name, command in sorted(commands.items()):
        lines += [".TP", f".BR mailstack\\-{_escaped(name)} (1)", _escaped(_first(command.help))]
    lines += [".SH OPTIONS", *_options(root), *_footer(commands)]
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any, day: str) -> str:
    lines = _heading(f"mailstack-{name}", 1, day, command.help)
    inner: dict[str, Any] = getattr(command, "commands", {})
    lines += [".SH SYNOPSIS"]
    for each, words in [(found, f"{name} {word}") for word, found in inner.items()] or [(command, name)]:
        lines += [f".B mailstack {_escaped(words)}", _escaped(_usage(each)), ".br"]
    if inner:
        lines += [".SH DESCRIPTION", _escaped(_plain(command.help))]
        for word, each in inner.items():
            lines += [f".SH {_escaped(name.upper())} {_escaped(word.upper())}", *_told(each)]
    else:
        lines += [".SH DESCRIPTION", *_told(command)]
    return "\n".join([*lines, *_footer({})]) + "\n"


def _told(command: Any) -> Iterator[str]:
    yield from _paragraphs(_plain(command.help))
    yield from _options(command)
    if command.epilog:
        example = _plain(command.epilog).removeprefix("Example: ")
        yield from (".PP", "Example:", ".RS", ".EX", _escaped(example), ".EE", ".RE")


def _options(command: Any) -> Iterator[str]:
    for each in command.params:
        if each.name in _HIDDEN or getattr(each, "hidden", False):
            continue
        is_option = each.param_type_name == "option"
        name = ", ".join(sorted(each.opts, key=len)) if is_option else _metavar(each).strip("[]")
        value = f" \\fI{_escaped(_metavar(each))}\\fR" if is_option and not each.is_flag else ""
        yield from (".TP", f"\\fB{_escaped(name)}\\fR{value}", _escaped(_plain(getattr(each, "help", None))))


def _usage(command: Any) -> str:
    words = []
    for each in command.params:
        if each.name in _HIDDEN or getattr(each, "hidden", False):
            continue
        if each.param_type_name == "argument":
            word = _metavar(each)
            words.append(word if each.required else f"[{word.strip('[]')}]")
        else:
            longest = max(each.opts, key=len)
            words.append(f"[{longest}]" if each.is_flag else f"[{longest} {_metavar(each)}]")
    return " ".join(words)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _settings(day: str) -> str:
    lines = [
        *_heading("mailstack.toml", 5, day, "Settings of mailstack."),
        ".SH DESCRIPTION",
        "A file in TOML, usually",
        ".IR /etc/mailstack/mailstack.toml .",
        ".B mailstack settings check",
        "tells all that is wrong with it.",
    ]
    for section, shape in SECTIONS.items():
        lines += [f".SH {_escaped(f'[{section}]') if section else 'ABOVE ALL TABLES'}"]
        if section:
            lines += [_escaped(_plain(shape.__doc__))]
        for key in (each for each in KEYS.values() if each.section == section):
            default = "" if key.default is None else f" = {json.dumps(key.default)}"
            lines += [".TP", f"\\fB{_escaped(key.name)}\\fR{_escaped(default)}", _escaped(key.meaning)]
    lines += [".SH SEE ALSO", ".BR mailstack (1)"]
    return "\n".join(lines) + "\n"


def _heading(name: str, section: int, day: str, text: str | None) -> list[str]:
    return [
        f'.TH "{_escaped(name.upper())}" "{section}" "{day}" "mailstack {__version__}" "mailstack"',
        ".nh",
        ".ad l",
        ".SH NAME",
        f"{_escaped(name)} \\- {_escaped(_first(text).rstrip('.'))}",
    ]


def _footer(commands: dict[str, Any]) -> list[str]:
    also = ["mailstack (1)"] if not commands else [f"mailstack-{name} (1)" for name in sorted(commands)]
    lines = [".SH SEE ALSO"]
    for each in [*also, "mailstack.toml (5)"]:
        name, section = each.split()
        lines += [f".BR {_escaped(name)} {section}"]
    return lines


def _paragraphs(text: str) -> Iterator[str]:
    for number, each in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield _escaped(" ".join(each.split()))


def _first(text: str | None) -> str:
    """The first sentence of a help text."""
    return re.split(r"(?<=\.)\s|\n\n", _plain(text))[0]


def _plain(text: str | None) -> str:
    """A help text without the marks for a terminal's colours."""
    return re.sub(r"\[/?(?:bold|dim|cyan|green|yellow|red)\]", "", text or "").strip()


def _escaped(text: str) -> str:
    """Text for roff, whatever it begins with."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in text.splitlines())
