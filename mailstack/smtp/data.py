"""Where message content ends on the wire: the dot of DATA and the count of BDAT, without I/O.

Chunks are handled whole, never line by line, and nothing but CRLF.CRLF ends DATA (RFC 5321
§4.1.1.4): a server that lets a bare LF or CR take part can be told to see a second message.
"""

from __future__ import annotations

from mailstack.mail.lines import dot_at_line_start

_END = b"\r\n.\r\n"


class DotReader:
    """The content of one DATA command, transparency removed (RFC 5321 §4.5.2).

    It begins as if after CRLF: a dot and CRLF at once end a message that is empty, and a stuffed
    first line is like any other.
    """

    __slots__ = ("_before", "_given", "done", "rest")

    def __init__(self) -> None:
        self.done = False
        """Whether the end has been seen."""
        self.rest = b""
        """What came behind the end: the next commands."""
        self._before = b"\r\n"  # the last octets that came, where they may be the beginning of _END
        self._given = 2  # how many of them are content that has been given out, or none at all

    def feed(self, chunk: bytes) -> bytes:
        """The content octets that the next chunk adds; to be called until done."""
        if self.done:
            raise ValueError("the end of the data has been seen")
        if not chunk:
            return b""
        if self._before == b"\r\n" and not chunk.startswith(b"."):
            given = 0  # an ordinary line begins; no need to join
        else:
            chunk, given = self._before + chunk, self._given
        if (dot := dot_at_line_start(chunk, b"\r\n")) >= 0:
            return self._unstuffed(chunk, dot - len(b"\r\n"))[given:]
        self._hold(chunk[-2:] if chunk.endswith(b"\r\n") else chunk[-1:] if chunk.endswith(b"\r") else b"")
        return chunk[given:]

    def _unstuffed(self, chunk: bytes, dot: int) -> bytes:
        """The content of a chunk whose first line that begins with a dot is behind the CRLF at `dot`."""
        end = chunk.find(_END, dot)
        if end >= 0:
            self.done = True
            self.rest = chunk[end + len(_END) :]
            chunk = chunk[: end + 2]
        elif chunk.endswith(b"\r\n."):
            self._hold(b"\r\n.")
            chunk = chunk[:-1]
        elif chunk.endswith(b"\r\n.\r"):
            self._hold(b"\r\n.\r")
            chunk = chunk[:-2]
        elif chunk.endswith(b"\r\n"):
            self._hold(b"\r\n")
        else:
            self._hold(b"\r" if chunk.endswith(b"\r") else b"")
        return chunk if end == dot else chunk.replace(b"\r\n.", b"\r\n")

    def _hold(self, before: bytes) -> None:
        self._before = before
        self._given = min(len(before), 2)


class ChunkReader:
    """The content of one BDAT command: exactly as many octets as it announced (RFC 3030 §2)."""

    __slots__ = ("done", "missing", "rest")

    def __init__(self, octets: int) -> None:
        self.done = not octets
        """Whether all octets have come; at once where none were announced (`BDAT 0 LAST`)."""
        self.rest = b""
        """What came behind them: the next commands."""
        self.missing = octets
        """How many octets have not come yet."""

    def feed(self, chunk: bytes) -> bytes:
        """The content octets that the next chunk adds; to be called until done."""
        if self.done:
            raise ValueError("all octets of the chunk have come")
        content = chunk[: self.missing]
        self.missing -= len(content)
        if not self.missing:
            self.done = True
            self.rest = chunk[len(content) :]
        return content
