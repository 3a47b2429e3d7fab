"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677) as SASL exchanges."""

from __future__ import annotations

from mailstack.auth import scram
from mailstack.auth.sasl import Challenge, Channel, Enter, Exchange, FindKeys, Found, Judge, text
from mailstack.errors import BadResponse


def sha256(initial: bytes | None, channel: Channel) -> Exchange:
    """SCRAM-SHA-256 (RFC 7677 §3)."""
    return _exchange(initial, channel, plus=False)


def sha256_plus(initial: bytes | None, channel: Channel) -> Exchange:
    """SCRAM-SHA-256-PLUS: the proof also covers the certificate that the client saw (RFC 5802 §6)."""
    return _exchange(initial, channel, plus=True)


def _exchange(initial: bytes | None, channel: Channel, *, plus: bool) -> Exchange:
    response = (yield Challenge(b"")) if initial is None else initial
    client = scram.first(text(response))
    _check_binding(client.flag, channel, plus=plus)
    found: Found = yield FindKeys(client.name, client.acting_as)
    proof = scram.Proof(client, found.keys, found.nonce, end_point=channel.end_point)
    final = yield Challenge(proof.challenge)
    # What cannot even be read proves nothing: it counts as a guess, so that none is free.
    signature = proof.verify(final.decode("utf-8", "replace"))
    yield Judge(found, proven=signature is not None)
    assert signature is not None  # else Judge has raised
    # POP3 and SMTP have no room for octets in a success, so ours come as one more challenge.
    if (yield Challenge(signature)) != b"":
        raise BadResponse("nothing more was asked for")
    return (yield Enter(found))


def _check_binding(flag: str, channel: Channel, *, plus: bool) -> None:
    """RFC 5802 §6: a flag that does not fit what we offered means that somebody changed our offer."""
    if flag.startswith("p") and not plus:
        raise BadResponse("channel binding belongs to a mechanism whose name ends in PLUS")
    if plus and not flag.startswith("p"):
        raise BadResponse("PLUS needs channel binding")
    if flag == "y" and channel.end_point is not None:
        raise BadResponse("channel binding is offered here, and somebody hid that from you")
