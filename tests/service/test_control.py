"""The control socket: one line of JSON each way, whoever asks and however."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mailstack.errors import NotFound
from mailstack.service.control import Control, connected


async def echo(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"said": request["word"]}


async def refuse(request: Mapping[str, Any]) -> Mapping[str, Any]:
    raise NotFound("there is none")


async def fail(request: Mapping[str, Any]) -> Mapping[str, Any]:
    raise RuntimeError("secret")


def names(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_each_line_has_one_answer(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)  # longer than a socket's path may be
    control = Control(folder, {"echo": echo, "refuse": refuse, "fail": fail})
    folder.mkdir(mode=0o700)
    await control.open()
    (path,) = names(folder)
    with connected(path) as connection:
        connection.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        answers = []
        for line in (
            b'{"command": "echo", "word": "hello"}',
            b'{"command": "refuse"}',
            b'{"command": "fail"}',
            b'{"command": "nothing"}',
            b"[]",
            b"\xff",
        ):
            writer.write(line + b"\n")
            answers.append(json.loads(await reader.readline()))
        writer.write(b"x" * 10_000 + b"\n")
        assert await reader.read() == b""
        writer.close()
    assert answers == [
        {"said": "hello"},
        {"error": "there is none"},
        {"error": "local error"},
        *[{"error": "not understood"}] * 3,
    ]
    await control.close()
    assert names(folder) == []


async def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "1-aaaaaaaa"))
    left.close()
    control = Control(tmp_path, {})
    await control.open()
    other = Control(tmp_path, {})
    await other.open()
    assert len(names(tmp_path)) == 2
    await control.close()
    await other.close()
