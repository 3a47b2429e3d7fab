"""The command line as Typer has it: one tree, of which the subject that is asked for is read."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mailstack import __version__
from mailstack.cli import exits, subjects
from mailstack.cli.admin import Admin, config_path
from mailstack.service.roles import ROLES

app = typer.Typer(
    name="mailstack",
    help="A complete mail server for a small office: SMTP in, one durable store, POP3 out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Unread(TyperCommand):
    """A subject in the list of all; who asks for it gets what is read then."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the words behind the subject's name."""
        gc.disable()  # what is read stays: to search it for cycles meanwhile takes 50 ms
        try:
            found = subjects.read(str(self.name))
        finally:
            gc.enable()
        return found.make_context(info_name, args, parent, **extra)


def tree() -> Any:
    """All commands, read: for those who describe them."""
    return _tree({name: subjects.read(name) for name in subjects.SUBJECTS})


def _tree(commands: Mapping[str, Any]) -> Any:
    root: Any = typer.main.get_command(app)
    root.commands = {**commands, **root.commands}
    return root


def run(arguments: Sequence[str]) -> int:
    """Obey a command line; return its exit code."""
    debug = "--debug" in arguments
    with exits.told(debug=debug):
        return exits.obey(lambda: _run(list(arguments)), debug=debug)


def _run(arguments: list[str]) -> int:
    unread = {name: _Unread(name=name, help=text) for name, text in subjects.SUBJECTS.items()}
    try:
        code = _tree(unread).main(args=arguments, prog_name="mailstack", standalone_mode=False)
    except SystemExit as end:
        # Typer ends with 1 when the reader of a pipe has gone; for us that is no error.
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None
        raise
    except typer.Abort:
        raise exits.Unconfirmed from None
    except Exception as error:
        # Which click a usage error belongs to differs between versions of Typer; its shape does not.
        if not hasattr(error, "format_message"):
            raise
        return _explain(error)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return os.EX_USAGE  # and the help has been printed
    path = context.command_path if context is not None else "mailstack"
    said = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    raise exits.Usage(f"{said}{'' if said.endswith('?') else ';'} see {path} --help")


def _say_version(asked: bool) -> None:
    if asked:
        print(f"mailstack {__version__}")
        raise typer.Exit


@app.callback()
def _mailstack(
    context: typer.Context,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The settings file; else MAILSTACK_CONFIG, else /etc/mailstack/mailstack.toml.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Tell where in the program an error arose.")] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_say_version, help="Say the version and end."),
    ] = False,
) -> None:
    context.obj = Admin(config_path(config, os.environ), debug)


@app.command("serve", epilog="Example: mailstack serve smtp pop3 --workers 2")
def _serve(
    roles: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ROLE]...", help=f"Of {', '.join(ROLES)}; none named means all."),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Processes that share the listening sockets; auto: one for each core, at most four.",
        ),
    ] = "1",
) -> None:
    """Receive and serve mail until SIGTERM; print `ready` once every listener accepts."""
    # `mailstack.cli.main` runs this command without Typer; this entry is for --help and completion.
    raise exits.Usage(f"serve takes {roles} and {workers} only as mailstack serve [ROLE ...] [--workers N]")
