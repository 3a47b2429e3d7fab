"""One setting as a dataclass field: how it is read, what it is when nobody says, what it means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any


def key(parse: Callable[[object], Any], default: Any, meaning: str, *, name: str = "") -> Any:
    """A setting: how it is read, what it is when nobody says (as TOML has it), what it means.

    `name` is what people call it where the attribute has a unit in its name, as in `max_message_octets`.
    """
    return field(
        default=None if default is None else parse(default),
        metadata={"parse": parse, "default": default, "meaning": meaning, "name": name},
    )
