"""Core statements that are compiled once and then run on the driver's own cursor.

SQLAlchemy writes the SQL for either database, but executing through it costs some 20 us a
statement, and building the statement anew 75 us more; the driver alone takes 3 to 5. What runs for
every message or every login is prepared; everything else is plain SQLAlchemy.

They are compiled for SQLite as they are read, so that processes that are forked later share the texts,
and for PostgreSQL where one is run there: a process on SQLite is spared 3 MiB of SQLAlchemy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Delete, Dialect, Executable, Insert, Select, TableValuedAlias, Update
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.expression import ColumnElement, bindparam
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Text

Row = tuple[Any, ...]

_Statement = Select[*tuple[Any, ...]] | Insert | Update | Delete
_Either = _Statement | Callable[[str], _Statement]
"""One statement for both databases, or what gives that of a database by its name."""
_Text = tuple[str, Callable[[Sequence[object]], Sequence[object]]]
"""A statement as the driver takes it, and what puts the values into the order of its placeholders."""


class _Numbers(ColumnElement[int]):
    """The numbers of one parameter, as rows."""

    inherit_cache = True

    def __init__(self, name: str) -> None:
        self.parameter: BindParameter[str] = bindparam(name, type_=Text())


def is_among(column: ColumnElement[int], name: str) -> ColumnElement[bool]:
    """Whether the column is one of the numbers of parameter `name`, as many as there may be."""
    return column.bool_op("IN")(_Numbers(name))


def packed(numbers: Iterable[int]) -> str:
    """The numbers as the parameter of `is_among`: a JSON array, which both databases unpack."""
    return str(list(numbers))


class _named(FunctionElement[Any]):  # noqa: N801 (as functions of SQL are)
    """The rows of `names`."""

    inherit_cache = True


def names(parameter: str) -> TableValuedAlias:
    """The pairs of a `number` and a `name` that are in one parameter, as a table to join.

    `(number, name) IN` would not do: SQLite then looks only for the number in an index of both.
    """
    return _named(bindparam(parameter, type_=Text())).table_valued("number", "name")


def packed_names(pairs: Iterable[tuple[int, str]]) -> str:
    """The pairs as the parameter of `names`, each once."""
    return json.dumps(list(dict.fromkeys(pairs)))


class joined(FunctionElement[str]):  # noqa: N801 (as functions of SQL are)
    """The texts of all rows, with a space between each two."""

    type = Text()
    inherit_cache = True


@compiles(joined, "sqlite")
def _sqlite_joined(element: joined, compiler: SQLCompiler, **kw: Any) -> str:
    return f"group_concat({compiler.process(element.clauses, **kw)}, ' ')"


@compiles(joined, "postgresql")
def _postgresql_joined(element: joined, compiler: SQLCompiler, **kw: Any) -> str:
    return f"string_agg({compiler.process(element.clauses, **kw)}, ' ')"


@compiles(_Numbers, "sqlite")
def _sqlite_numbers(element: _Numbers, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(SELECT value FROM json_each({compiler.process(element.parameter, **kw)}))"


@compiles(_Numbers, "postgresql")
def _postgresql_numbers(element: _Numbers, compiler: SQLCompiler, **kw: Any) -> str:
    array = compiler.process(element.parameter, **kw)
    return f"(SELECT value::bigint FROM json_array_elements_text(CAST({array} AS json)))"


@compiles(_named, "sqlite")
def _sqlite_named(element: _named, compiler: SQLCompiler, **kw: Any) -> str:
    array = compiler.process(element.clauses, **kw)
    pair = "json_extract(value, '$[0]') AS number, json_extract(value, '$[1]') AS name"
    return f"(SELECT {pair} FROM json_each({array}))"


@compiles(_named, "postgresql")
def _postgresql_named(element: _named, compiler: SQLCompiler, **kw: Any) -> str:
    array = compiler.process(element.clauses, **kw)
    pair = "(value->>0)::bigint AS number, value->>1 AS name"
    return f"(SELECT {pair} FROM json_array_elements(CAST({array} AS json)))"


class Prepared:
    """One statement; its values are given in the order of `parameters`."""

    def __init__(self, statement: _Either, *parameters: str) -> None:
        self._texts = _Texts(statement, parameters)

    def rows(self, connection: Connection, *values: object) -> list[Row]:
        """Run once; all rows of the result."""
        text, arrange = self._texts[connection.dialect.name]
        cursor = _cursor(connection)
        cursor.execute(text, arrange(values))
        found: list[Row] = cursor.fetchall()
        return found

    def row(self, connection: Connection, *values: object) -> Row | None:
        """Run once; the first row, if there is one."""
        found = self.rows(connection, *values)
        return found[0] if found else None

    def run(self, connection: Connection, *values: object) -> None:
        """Run once, for its effect."""
        text, arrange = self._texts[connection.dialect.name]
        _cursor(connection).execute(text, arrange(values))

    def run_many(self, connection: Connection, rows: Sequence[Sequence[object]]) -> None:
        """Run once for each row of values, for the effect."""
        text, arrange = self._texts[connection.dialect.name]
        arranged = rows if arrange is tuple else [arrange(values) for values in rows]
        _cursor(connection).executemany(text, arranged)


class _Texts(dict[str, _Text]):
    """A statement's text for each kind of database that it was wanted for."""

    def __init__(self, statement: _Either, parameters: Sequence[str]) -> None:
        super().__init__(sqlite=_compiled(statement, _dialect("sqlite"), parameters))
        self._statement = statement
        self._parameters = parameters

    def __missing__(self, name: str) -> _Text:
        found = self[name] = _compiled(self._statement, _dialect(name), self._parameters)
        return found


@cache
def _dialect(name: str) -> Dialect:
    # Positional parameters in both; the drivers take a tuple faster than a mapping.
    if name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.psycopg.dialect(paramstyle="format")  # type: ignore[no-untyped-call]
    return sqlite.dialect(paramstyle="qmark")


def _cursor(connection: Connection) -> Any:
    # Those of the drivers in use are DB-API connections themselves, and this one asks nobody.
    return connection.connection.dbapi_connection.cursor()  # type: ignore[union-attr]


def _compiled(statement: _Either, dialect: Dialect, parameters: Sequence[str]) -> _Text:
    if not isinstance(statement, Executable):
        statement = statement(dialect.name)
    columns = parameters if isinstance(statement, Insert) and statement.select is None else None
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    assert isinstance(compiled, SQLCompiler)
    order = compiled.positiontup or []
    assert set(order) == set(parameters), f"{statement} has the parameters {order}"
    if list(order) == list(parameters):
        return str(compiled), tuple  # which gives back the one that it is given
    return str(compiled), itemgetter(*map(parameters.index, order))
