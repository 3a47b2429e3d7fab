"""`mailstack serve`: the only command that stays, so it is parsed without Typer."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn

from mailstack.cli import exits
from mailstack.cli.admin import Admin, become_owner, config_path
from mailstack.errors import BadSetting
from mailstack.service.roles import ROLES

_MOST_OF_AUTO: Final = 4
"""Processes of one role: more of them would only wait for one another's turn at the store."""

_WANTED: Final = "--workers takes auto or a number of processes from 1 to 64"

_OPTIONS_WITH_VALUE: Final = frozenset({"--config"})
_HELP: Final = frozenset({"-h", "--help"})


class Serve(NamedTuple):
    """`mailstack serve` as it was given."""

    admin: Admin
    roles: tuple[str, ...]
    workers: int


def understood(arguments: Sequence[str]) -> Serve | None:
    """The command, if it is `serve` and no cry for help; everything else is Typer's."""
    place = 0
    while place < len(arguments) and arguments[place].startswith("-"):
        place += 2 if arguments[place] in _OPTIONS_WITH_VALUE else 1
    if "serve" not in arguments[place : place + 1] or not _HELP.isdisjoint(arguments):
        return None
    options = _globals().parse_args(arguments[:place])
    command = _command(arguments[place + 1 :])
    admin = Admin(config_path(options.config, os.environ), options.debug)
    return Serve(admin, tuple(dict.fromkeys(command.roles)), command.workers)


def run(command: Serve) -> int:
    """Start the service and stay until it ends."""
    return exits.obey(lambda: _serve(command), debug=command.admin.debug)


def _serve(command: Serve) -> int:
    from mailstack import log, settings
    from mailstack.service import start

    found = command.admin.settings
    log.configure(found.log.level)
    become_owner(found.state_dir)
    if problems := settings.unreadable(found):
        raise BadSetting("\n".join(f"{command.admin.config}: {problem}" for problem in problems))
    return start.run(found, command.roles, command.workers, reread=command.admin.reread)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence, and the code of sysexits(3) for a wrong usage."""
        self.exit(os.EX_USAGE, f"mailstack: {message}; see mailstack serve --help\n")


def _globals() -> argparse.ArgumentParser:
    parser = _Parser(prog="mailstack", add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--debug", action="store_true")
    return parser


def _command(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="mailstack serve", add_help=False, allow_abbrev=False)
    parser.add_argument("roles", nargs="*", metavar="ROLE", default=[])
    parser.add_argument("--workers", type=_workers, default=1, metavar="N")
    command, unknown = parser.parse_known_args(arguments)
    there_are = f"there are {', '.join(ROLES)}"
    if unknown:  # before its value is taken for a role
        said = " ".join(unknown)
        parser.error(f"unrecognized arguments: {said}; {_WANTED}, and of roles {there_are}")
    for role in command.roles:
        if role not in ROLES:
            parser.error(f"there is no role {role}; {there_are}")
    return command


def _workers(text: str) -> int:
    if text == "auto":
        return min(len(os.sched_getaffinity(0)), _MOST_OF_AUTO)
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text} is neither auto nor a number of processes from 1 to 64")
    return int(text)
