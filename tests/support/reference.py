"""What SMTP and POP3 do to content, said a second time: slow, obvious, and unlike the server's code."""

from __future__ import annotations

import re
from typing import NamedTuple


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


class WithHeader(NamedTuple):
    """Canonical content with a header that ends, and what was seen on the way through that header."""

    content: bytes
    received_fields: int
    header_octets: int
    dotted: bool


def with_its_header(content: bytes) -> WithHeader:
    """Line by line: without `Return-Path:` fields (RFC 5321 §4.4), the From lines of an mbox as fields, and
    with an empty line before a body where no field is kept.
    """
    lines = re.findall(rb"[^\n]*\n", content)
    kept: list[bytes] = []
    received, octets, name, at_top, is_empty = 0, 0, b"", True, True
    while lines:
        if lines[0][:1] in (b" ", b"\t"):
            if not name:
                break
        elif match := re.match(rb"([!-9;-~]{1,998})[ \t]{0,998}:", lines[0]):
            name, at_top = match[1].lower(), False
            received += name == b"received"
        elif at_top and re.match(b">?From ", lines[0]):
            name = b"x-mailbox-line"
            octets -= len(b"X-Mailbox-Line: ")
            lines[0] = b"X-Mailbox-Line: " + lines[0]
        else:
            break
        line = lines.pop(0)
        octets += len(line)
        if name != b"return-path":
            kept.append(line)
            is_empty = is_empty and at_top
    if lines and is_empty and not re.match(b"\r\n|\r\\Z", lines[0]):
        kept.append(b"\r\n")
    kept += lines
    return WithHeader(b"".join(kept), received, octets, any(line.startswith(b".") for line in kept))


def kept(data: bytes) -> bytes:
    """What the store has to keep, below its own trace fields, of what DATA carried."""
    return with_its_header(canonical(unstuffed(data))).content


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
