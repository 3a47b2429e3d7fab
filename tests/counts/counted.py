"""`mailstack`, counted: run in its place, below strace, by tests that bound what a unit of work may cost.

What Python does is counted in each process and told on a unix socket; what the kernel is asked for is
in strace's file. Nothing of ours is replaced: the interpreter, the driver and the loop are listened to.
Only what waits for a quiet moment waits less, so that what is done by the clock is not counted with it.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import psycopg
import uvloop

from mailstack.store import events, leftovers, writing_process
from mailstack.store.engine import Database

COUNTS_SOCKET: Final = "COUNTS_SOCKET"
TRACE_FILE: Final = "COUNTS_TRACE_FILE"
_BELOW_STRACE: Final = "COUNTS_BELOW_STRACE"

_QUIET_SECONDS: Final = 1.0
_EVENTS_SECONDS: Final = 0.8
"""Events that wait are objects, too: they are written while a quiet moment is awaited."""

_SYSTEM_CALLS: Final = "fsync,fdatasync,sync_file_range,write,writev,sendto,sendmsg"


class _Here(threading.local):
    """What one thread has done; its own, because `+=` of two threads loses some."""

    def __init__(self) -> None:
        self.done = dict.fromkeys(("calls", "statements", "commits", "hops"), 0)
        _everywhere.append(self.done)


_connect_to_sqlite: Final = sqlite3.connect
_serve_uncounted: Final = writing_process._serve
_fork_alone: Final = writing_process.fork
_everywhere: list[dict[str, int]] = []
_here = _Here()


def _on_profile(_frame: FrameType, event: str, _argument: object) -> None:
    if event == "call":
        _here.done["calls"] += 1


def _on_statement(text: str) -> None:
    if not text.startswith("--"):  # a trigger's part of a statement
        _here.done["statements"] += 1
        _here.done["commits"] += text == "COMMIT"


def _listen_to_postgresql() -> None:
    execute, executemany, commit = (
        psycopg.Cursor.execute,
        psycopg.Cursor.executemany,
        psycopg.Connection.commit,
    )

    def counted(method: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            _here.done[name] += 1
            return method(*arguments, **options)

        return call

    psycopg.Cursor.execute = counted(execute, "statements")
    psycopg.Cursor.executemany = counted(executemany, "statements")
    psycopg.Connection.commit = counted(commit, "commits")


def _connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
    made = _connect_to_sqlite(*arguments, **options)
    made.set_trace_callback(_on_statement)
    return made


class _Loop(uvloop.Loop):
    """uvloop, that also counts how often another thread wakes it."""

    def call_soon_threadsafe(self, callback: Any, *arguments: Any, context: Any = None) -> Any:
        _here.done["hops"] += 1
        return super().call_soon_threadsafe(callback, *arguments, context=context)


def _tell_at(address: str) -> None:
    """Have a thread, which is not counted itself, tell whoever asks there."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    threading.Thread(target=_tell, args=(listening,), daemon=True).start()


def _serve(connection: socket.socket, database: Database) -> None:
    """The process that writes is counted, too."""
    _tell_at(f"{os.environ[COUNTS_SOCKET]}-writing")
    _serve_uncounted(connection, database)


def _fork(url: str) -> writing_process.WritingProcess:
    """The server has no thread when that process is forked, and none of ours."""
    forked = _fork_alone(url)
    _tell_at(os.environ[COUNTS_SOCKET])
    return forked


def _tell(listening: socket.socket) -> None:
    sys.setprofile(None)
    while True:
        asked, _ = listening.accept()
        with asked:
            gc.collect()
            told = {name: sum(each[name] for each in list(_everywhere)) for name in _here.done}
            told["blocks"] = sys.getallocatedblocks()
            asked.sendall(json.dumps(told).encode())


def _exec_below_strace() -> None:
    os.environ[_BELOW_STRACE] = "yes"
    # -D: strace is the grandchild, so that whoever started us has the server as its child.
    words = [
        "-D",
        "-f",
        "-qqq",
        "-yy",
        "--seccomp-bpf",
        "-s",
        "0",
        "-e",
        "signal=none",
        "-e",
        f"trace={_SYSTEM_CALLS}",
    ]
    command = [sys.executable, "-m", "tests.counts.counted", *sys.argv[1:]]
    os.execvp("strace", ["strace", *words, "-o", os.environ[TRACE_FILE], *command])


def _count() -> None:
    leftovers.QUIET_SECONDS = _QUIET_SECONDS  # type: ignore[misc]
    events._SECONDS = _EVENTS_SECONDS  # type: ignore[misc]
    writing_process._serve = _serve
    writing_process.fork = _fork
    sqlite3.connect = sqlite3.dbapi2.connect = _connect
    _listen_to_postgresql()
    uvloop.new_event_loop = _Loop
    threading.setprofile(_on_profile)
    sys.setprofile(_on_profile)


if __name__ == "__main__":
    if _BELOW_STRACE not in os.environ:
        _exec_below_strace()
    from mailstack.cli import main

    _count()
    raise SystemExit(main())
