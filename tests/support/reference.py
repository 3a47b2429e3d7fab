"""What SMTP and POP3 do to content, said a second time: slow, obvious, and unlike the server's code."""

from __future__ import annotations

import re


def stuffed(content: bytes) -> bytes:
    """The content as DATA carries it, its end included (RFC 5321 §4.5.2); it must end with CRLF."""
    lines = content.split(b"\r\n")
    assert lines.pop() == b""
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


def unstuffed(data: bytes) -> bytes:
    """The content of what DATA carried, given without the final dot line (RFC 5321 §4.5.2)."""
    return b"\r\n".join(line.removeprefix(b".") for line in data.split(b"\r\n"))


def canonical(content: bytes) -> bytes:
    """Every bare LF a CRLF, every bare CR a space, and an end of line at the end."""
    content = re.sub(rb"\r(?!\n)", b" ", content)
    content = re.sub(rb"(?<!\r)\n", b"\r\n", content)
    return content if not content or content.endswith(b"\r\n") else content + b"\r\n"


def with_its_header(content: bytes) -> bytes:
    """Canonical content with a header that ends, and without `Return-Path:` fields in it (RFC 5321 §4.4)."""
    lines = content.split(b"\r\n")
    kept: list[bytes] = []
    at_top, dropping = True, False
    for number, line in enumerate(lines):
        before = b""
        if field := re.match(rb"([!-9;-~]{1,998})[ \t]{0,998}:", line):
            at_top, dropping = False, field[1].lower() == b"return-path"
        elif at_top and line.startswith((b"From ", b">From ")):
            before = b"X-Mailbox-Line: "
        elif number == 0 or not line.startswith((b" ", b"\t")):
            end = [b""] if line else []
            return b"\r\n".join(kept + end + lines[number:])
        else:
            at_top = False
        if not dropping:
            kept.append(before + line)
    return b"\r\n".join(kept)


def kept(data: bytes) -> bytes:
    """What the store has to keep, below its own trace fields, of what DATA carried."""
    return with_its_header(canonical(unstuffed(data)))


def below_trace(message: bytes) -> tuple[bytes, bytes, bytes]:
    """A retrieved message as its reverse-path, the id of its `Received:` field, and the content below.

    The server writes three fields on top: Return-Path, Delivered-To, Received (RFC 5321 §4.4). The
    last one ends with its date: what follows may begin with a blank and is the sender's all the same.
    """
    trace = re.match(
        rb"Return-Path: <([^>\r\n]*)>\r\n"
        rb"Delivered-To: [^\r\n]+\r\n"
        rb"Received: from [^;]+;\s+\w{3}, \d\d? \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}\r\n",
        message,
    )
    assert trace is not None, message[:400]
    number = re.search(rb"\sid ([a-z0-9-]+)", trace[0])
    assert number is not None, trace[0]
    return trace[1], number[1], message[trace.end() :]
