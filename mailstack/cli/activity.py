"""The server's log lines, made readable for a person who watches."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime

from rich.text import Text

from mailstack.cli import show

_PAIR = re.compile(r'([\w.]+)=("(?:[^"\\]|\\.)*"|\S*)')
_ESCAPED = re.compile(r'\\(["\\])')

_APART = frozenset({"time", "level", "event", "session", "id"})
"""Fields that are shown in another way, or that only help where many lines have to be searched."""

_SENTENCES = {
    "serving": ("{on}",),
    "mail": ("{reverse_path} -> {forward_path}, {octets}: {outcome}",),
    "recipient refused": ("{reverse_path} -> {forward_path}: {reply}",),
    "pop3.session": (
        "{account}: {retrieved} fetched ({retrieved_octets}), {deleted} deleted",
        "{address}: nobody logged in, {refused} refused, {ended}",
        "{address}: nobody logged in, {ended}",
    ),
}
"""How everyday events read: the first sentence whose fields are all there; else all fields are shown."""

_COLOURS = {"debug": "dim", "info": "cyan", "warning": "yellow", "error": "red", "critical": "red"}


def fields(line: str) -> dict[str, str]:
    """The fields of one log line (mailstack.log); none where it is no such line."""
    return {key: _plain(value) for key, value in _PAIR.findall(line)}


def told(line: str) -> Text:
    """One log line for people: when, what, and what is to be known of it."""
    known = fields(line)
    if "event" not in known:
        return Text(line, "yellow")
    text = Text()
    text.append(f"{_clock(known.get('time'))}  ", "dim")
    text.append(f"{known['event']:<18}", f"bold {_COLOURS.get(known.get('level', ''), 'cyan')}")
    readable = {key: _readable(key, value) for key, value in known.items() if key not in _APART}
    for sentence in _SENTENCES.get(known["event"], ()):
        with suppress(KeyError):
            return text.append(f" {sentence.format_map(readable)}")
    for key, value in readable.items():
        text.append(f" {key.replace('_', ' ')} ", "dim").append(value)
    return text


def _plain(value: str) -> str:
    if value.startswith('"') and value.endswith('"') and len(value) > 1:
        return _ESCAPED.sub(r"\1", value[1:-1])
    return value


def _readable(key: str, value: str) -> str:
    return show.octets(int(value)) if key.endswith("octets") and value.isdecimal() else value


def _clock(time: str | None) -> str:
    try:
        at = datetime.fromisoformat(time) if time else datetime.now().astimezone()
    except ValueError:
        return time or ""
    return at.astimezone().strftime("%H:%M:%S")
