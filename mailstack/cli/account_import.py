"""`mailstack account import`: thousands of accounts out of a spreadsheet, all of them or none."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated, NamedTuple, TextIO

import typer

from mailstack.auth import passwords, schemes
from mailstack.auth.passwords import Stored
from mailstack.cli import ask, limits, show
from mailstack.cli.options import Json, admin
from mailstack.cli.progress import followed
from mailstack.errors import BadData, BadPassword, MailstackError
from mailstack.mail.address import Mailbox
from mailstack.settings import Settings
from mailstack.store import accounts
from mailstack.store.accounts import NewAccount

EXAMPLE = (
    "Example: mailstack account import people.csv   (first line: address,password or address,password_hash;"
    " a column quota may follow)"
)

_SECRETS = ("password", "password_hash")
_COLUMNS = ("address", *_SECRETS, "quota")
_SHOWN_PROBLEMS = 20


class _Row(NamedTuple):
    line: int
    mailbox: Mailbox
    secret: str | Stored
    """The password, or the hash of it that another server had."""
    quota_octets: int | None


def import_(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE.csv", help="With a header line; - is standard input.")],
    json: Json = False,
) -> None:
    """Make an account of every row of a CSV file; a mistake in any row makes none."""
    settings = admin(context).settings
    with _opened(file) as stream:
        rows = _understood(stream, settings)
    with admin(context).database() as database:
        with database.reading() as connection:
            _refuse_taken(rows, accounts.taken(connection, [row.mailbox for row in rows]))
        kept = _kept([row.secret for row in rows], settings.auth.scram_iterations)
        new = [
            NewAccount(row.mailbox, each.password_hash, row.quota_octets, each.scram_keys)
            for row, each in zip(rows, followed("hashing passwords", kept, len(rows)), strict=True)
        ]
        with database.writing() as connection:
            accounts.add_accounts(connection, new)
    if json:
        show.as_json({"accounts": len(new)})
    else:
        print(f"{show.counted(len(new), 'account')} can receive and fetch mail now")
        if any(each.scram_keys is None for each in new):
            show.note(
                "a hash from another server is renewed at its first login; SCRAM is offered after the last"
            )


@contextmanager
def _opened(file: str) -> Iterator[TextIO]:
    # Spreadsheets like to begin a file with a byte order mark.
    if file == "-":
        if sys.stdin is None:
            raise BadData("there is no standard input, where the accounts have to come from")
        stream = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
        yield stream
        stream.detach()  # standard input is not ours to close
        return
    with Path(file).open(encoding="utf-8-sig", newline="") as stream:
        yield stream


def _understood(stream: TextIO, settings: Settings) -> list[_Row]:
    problems: list[str] = []
    rows: list[_Row] = []
    try:
        header = stream.readline()
        # Where the comma is the decimal point, spreadsheets put semicolons between the cells.
        delimiter = ";" if ";" in header else ","
        reader = csv.DictReader(chain([header], stream), delimiter=delimiter, strict=True)
        _check_header(reader.fieldnames)
        for cells in reader:
            try:
                rows.append(_row(reader.line_num, cells, settings))
            except (MailstackError, ValueError) as error:
                problems.append(f"line {reader.line_num}: {error}")
    except UnicodeDecodeError as error:
        raise BadData(f"the file is not UTF-8 text: {error.reason}") from error
    except csv.Error as error:
        raise BadData(f"line {reader.line_num}: this is not CSV: {error}") from error
    _refuse(problems)
    return rows


def _check_header(names: Iterable[str] | None) -> None:
    found = [name.strip().lower() for name in names or ()]
    if found[:1] != ["address"] or not set(found[1:2]) & set(_SECRETS) or not set(found) <= set(_COLUMNS):
        raise BadData(
            "line 1: the header has to be address,password or address,password_hash; quota may follow"
        )


def _row(line: int, cells: dict[str, str | None], settings: Settings) -> _Row:
    if None in cells:  # where DictReader puts what is too much
        raise BadData("there are more cells than the header has; a password with a comma needs quotes")
    named = {name.strip().lower(): cell for name, cell in cells.items()}
    address, quota = (named["address"] or "").strip(), (named.get("quota") or "").strip()
    secret = _secret(named.get("password") or "", named.get("password_hash") or "")
    return _Row(line, ask.mailbox(address, settings), secret, limits.parsed_quota(quota) if quota else None)


def _secret(password: str, password_hash: str) -> str | Stored:
    if not password_hash.strip():
        return ask.typed(password)
    if password:
        raise BadData("there is a password as well as a hash")
    if not (schemed := schemes.split(password_hash.lstrip())):
        raise BadPassword("the hash begins with no {SCHEME} and no $id$; {PLAIN} stands before a password")
    if schemed.scheme in schemes.PLAIN:
        return ask.checked(schemed.text)
    return Stored(schemes.adopted(schemed.scheme, schemed.text.rstrip()), None)


def _refuse_taken(rows: list[_Row], taken: dict[Mailbox, str]) -> None:
    _refuse(
        [f"line {row.line}: {row.mailbox} is {taken[row.mailbox]}" for row in rows if row.mailbox in taken]
    )


def _refuse(problems: list[str]) -> None:
    if not problems:
        return
    more = len(problems) - _SHOWN_PROBLEMS
    shown = problems[:_SHOWN_PROBLEMS] + ([f"and {more} more problems"] if more > 0 else [])
    raise BadData("\n".join([*shown, "no account was made"]))


def _kept(secrets: list[str | Stored], iterations: int) -> Iterator[Stored]:
    def keep(secret: str | Stored) -> Stored:
        return secret if isinstance(secret, Stored) else passwords.stored(secret, iterations=iterations)

    # argon2 and PBKDF2 let go of the interpreter lock while they work, so threads keep all cores busy.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from threads.map(keep, secrets)
