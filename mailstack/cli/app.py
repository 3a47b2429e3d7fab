"""The command line as Typer has it: all subjects in one tree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer

from mailstack import __version__
from mailstack.cli import (
    account,
    alias,
    backup,
    bench,
    certificate,
    database,
    deliver,
    demo,
    dns,
    doctor,
    domain,
    exits,
    housekeeping,
    init,
    maildrop,
    session,
    settings,
    setup,
    status,
    top,
    trace,
)
from mailstack.cli.admin import Admin, config_path
from mailstack.cli.serve import ROLES

app = typer.Typer(
    name="mailstack",
    help="A complete mail server for a small office: SMTP in, one durable store, POP3 out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("setup", epilog=setup.EXAMPLE)(setup.setup)
app.command("init", epilog=init.EXAMPLE)(init.init)
app.command("demo", epilog=demo.EXAMPLE)(demo.demo)
app.command("status", epilog=status.EXAMPLE)(status.status)
app.command("doctor", epilog=doctor.EXAMPLE)(doctor.doctor)
app.command("dns", epilog=dns.EXAMPLE)(dns.dns)
app.command("deliver", epilog=deliver.EXAMPLE)(deliver.deliver)
app.add_typer(domain.app)
app.add_typer(account.app)
app.command("top", epilog=top.EXAMPLE)(top.top)
app.command("bench", epilog=bench.EXAMPLE)(bench.bench)
app.command("trace", epilog=trace.EXAMPLE)(trace.trace)
app.add_typer(alias.app)
app.add_typer(maildrop.app)
app.add_typer(session.app)
app.add_typer(database.app)
app.add_typer(backup.app)
app.add_typer(certificate.app)
app.add_typer(housekeeping.app)
app.add_typer(settings.app)


def run(arguments: Sequence[str]) -> int:
    """Obey a command line; return its exit code."""
    return exits.obey(lambda: _run(list(arguments)), debug="--debug" in arguments)


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="mailstack", standalone_mode=False)
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
    raise exits.Usage(f"{said}; see {path} --help")


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
