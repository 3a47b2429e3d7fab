"""A message as a session reads it."""

from __future__ import annotations

from sqlalchemy import Connection

from mailstack.store import blobs, fetching
from mailstack.store.parts import parts_in


def whole(connection: Connection, account_id: int, uid: int, *, surrogates: bool = False) -> bytes:
    """All its octets, of which no piece is too large."""
    opened = fetching.open_message(connection, account_id, uid, surrogates=surrogates)
    pieces = list(opened.first)
    for number in range(1, parts_in(opened.content_octets), fetching.PARTS_A_STEP):
        pieces += fetching.step(connection, opened, number)
    octets = b"".join(pieces)
    assert len(octets) == opened.octets
    prefix = opened.octets - opened.content_octets
    assert all(len(piece) <= blobs.PIECE_OCTETS + prefix for piece in pieces)
    return octets
