"""What tells a part of a message that the disk has changed: its CRC-32, kept beside the message.

A digest of the kind that resists forgery takes many times as long (for 64 KB 35 us by SHA-256 with the
processor's help, 20 by zlib's CRC-32, 0.8 by zlib-ng's), and whoever can forge content here can forge
its digest too. The digests are for decay, and CRC-32 misses one decayed part in four billion.
"""

from __future__ import annotations

from typing import Final

from zlib_ng import zlib_ng

from mailstack.errors import MessageDamaged
from mailstack.mail.spool import Piece

DIGEST_OCTETS: Final = 4
"""The digest of one part; `message.digests` has them one behind the other."""


def of_part(*pieces: Piece) -> bytes:
    """The digest of one part, given in pieces."""
    crc = 0
    for piece in pieces:
        crc = zlib_ng.crc32(piece, crc)
    return crc.to_bytes(DIGEST_OCTETS, "big")


def fits(digests: bytes | None, number: int, *pieces: bytes) -> bool:
    """Whether the pieces are part `number` as it was deposited; a message without digests is believed."""
    if digests is None:
        return True
    at = number * DIGEST_OCTETS
    return digests[at : at + DIGEST_OCTETS] == of_part(*pieces)


def fits_whole(digests: bytes | None, octets: bytes) -> bool:
    """The same of a message that is one part in one piece, as most are."""
    return digests is None or digests == zlib_ng.crc32(octets).to_bytes(DIGEST_OCTETS, "big")


def damaged(message_id: int) -> MessageDamaged:
    """The error that names a damaged message."""
    return MessageDamaged(f"message {message_id} is damaged; your administrator can restore it from a backup")
