"""From the file, the credentials and the environment to `Settings`, with every mistake named at once."""

from __future__ import annotations

import re
import socket
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mailstack.errors import BadSetting
from mailstack.settings import credentials
from mailstack.settings.contradictions import contradictions
from mailstack.settings.credentials import Credential
from mailstack.settings.security import Tls
from mailstack.settings.whole import KEYS, PREFIX, SECTIONS, Settings

NOT_SETTINGS = frozenset({"MAILSTACK_CONFIG"})
"""Variables that have the prefix and are no settings."""


class Reading(NamedTuple):
    """The settings, for every key that somebody set the file or the variable that did, and credentials."""

    settings: Settings
    origins: Mapping[str, str]
    credentials: Sequence[Credential]


class _Said(NamedTuple):
    """A value as somebody wrote it, and where."""

    value: object
    origin: str


def load(path: Path | None, environ: Mapping[str, str], text: str | None = None) -> Settings:
    """The settings of `path` (None: no file), then credentials, then the environment; raises BadSetting.

    `text` is what the file will say once it is there.
    """
    return read(path, environ, text=text).settings


def read(
    path: Path | None,
    environ: Mapping[str, str],
    known: Sequence[Credential] = (),
    text: str | None = None,
) -> Reading:
    """As `load`, and where each value came from; the credentials known before stay where they are hidden."""
    problems: list[str] = []
    passed = _credentials(path, environ, known, problems)
    said = {
        **_in_file(path, text, problems),
        **{each.key: _Said(each.value, str(each.file)) for each in passed},
        **_in_environment(environ, problems),
    }
    parsed: dict[str, Any] = {}
    for name, (value, origin) in said.items():
        try:
            parsed[name] = KEYS[name].parse(value)
        except ValueError as error:
            problems.append(f"{origin}: {name}: {error}")
    settings = _placed(_assembled(parsed), path.absolute().parent if path else Path.cwd())
    origins = {name: origin for name, (_, origin) in said.items()}
    problems.extend(contradictions(settings, origins, path))
    if problems:
        raise BadSetting("\n".join(problems))
    return Reading(settings, origins, passed)


def unreadable(settings: Settings) -> list[str]:
    """Why files that the settings name cannot be read, a sentence each; the service asks before it starts."""
    problems = []
    for name, file in (("certificate", settings.tls.certificate), ("private_key", settings.tls.private_key)):
        try:
            if file is not None:
                file.open("rb").close()
        except OSError as error:
            problems.append(f"tls.{name}: {file} cannot be read: {error.strerror}")
    return problems


def _in_file(path: Path | None, text: str | None, problems: list[str]) -> dict[str, _Said]:
    if path is None:
        return {}
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8") if text is None else text)
    except OSError as error:
        advice = (
            "; mailstack setup makes one for this machine, --config names another"
            if isinstance(error, FileNotFoundError)
            else ""
        )
        raise BadSetting(f"{path}: the settings file cannot be read: {error.strerror}{advice}") from error
    except UnicodeDecodeError as error:
        raise BadSetting(f"{path}: the settings file is not UTF-8 text (octet {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise BadSetting(f"{path}: the settings file is not TOML: {error}") from error
    said = {}
    for name, value in _flattened(tree, path, problems):
        if name in KEYS:
            said[name] = _Said(value, str(path))
        else:
            problems.append(f"{path}: {name}: {_unknown(name, list(KEYS))}")
    return said


def _credentials(
    path: Path | None, environ: Mapping[str, str], known: Sequence[Credential], problems: list[str]
) -> list[Credential]:
    try:
        found = credentials.found(path.absolute().parent if path else None, environ, known)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"a credential cannot be read: {error}")
        return []
    problems.extend(f"{file}: {_unknown(key, list(KEYS))}" for key, _, file in found if key not in KEYS)
    return [each for each in found if each.key in KEYS]


def _flattened(tree: dict[str, Any], path: Path, problems: list[str]) -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if name in SECTIONS and not isinstance(value, dict):
            problems.append(
                f"{path}: {name}: this is a table of settings; write [{name}] on a line of its own"
            )
        elif isinstance(value, dict) and name not in KEYS:
            if name not in SECTIONS:
                problems.append(f"{path}: [{name}]: {_unknown(name, list(SECTIONS))}")
            else:
                yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def _in_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, _Said]:
    variables = {key.variable: str(key) for key in KEYS.values()}
    said = {}
    for variable in sorted(environ):
        if variable in variables:
            said[variables[variable]] = _Said(environ[variable], variable)
        elif variable.startswith(PREFIX) and variable not in NOT_SETTINGS:
            problems.append(f"environment: {variable}: {_unknown(variable, list(variables))}")
    return said


def _unknown(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"there is no such setting; did you mean {near[0]}?" if near else "there is no such setting"


def _assembled(parsed: Mapping[str, Any]) -> Settings:
    whole: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS if section}
    for name, value in parsed.items():
        key = KEYS[name]
        (parts[key.section] if key.section else whole)[key.attribute] = value
    whole.setdefault("hostname", socket.gethostname() or "localhost")
    return Settings(**whole, **{section: SECTIONS[section](**given) for section, given in parts.items()})


def _placed(settings: Settings, folder: Path) -> Settings:
    def absolute(file: Path | None) -> Path | None:
        return None if file is None else folder / file

    url = settings.database_url
    if url and (relative := re.fullmatch(r"sqlite:///([^/?].*)", url)):
        url = f"sqlite:///{folder / relative[1]}"
    tls = Tls(absolute(settings.tls.certificate), absolute(settings.tls.private_key))
    backup = replace(settings.backup, folder=folder / settings.backup.folder)
    return replace(settings, state_dir=folder / settings.state_dir, database_url=url, tls=tls, backup=backup)
