"""Long replies on their way out: never more of one in memory than the outlet holds."""

from __future__ import annotations

import asyncio
from typing import Final

from mailstack.pop3.answers import Answers
from mailstack.pop3.asks import Ask
from mailstack.pop3.outlet import Outlet
from mailstack.pop3.replies import Lines, Message, Reply
from mailstack.pop3.stuffing import Transfer, dressed

_AT_ONCE_OCTETS: Final = 64 * 1024
"""So much of a message is written before the outlet is asked whether it has room.

Its pieces are not larger: the buffers of TLS grow to what they are given at a time, and stay like that.
"""


async def lines(outlet: Outlet, answers: Answers, slices: Lines) -> None:
    """Send a listing slice by slice; raises Gone when nobody is there any more.

    Raises what the store has against it, too, in the middle of the reply.
    """
    answer = None
    while True:
        try:
            some = slices.send(answer)
        except StopIteration:
            return
        if not isinstance(some, bytes):
            answer = await _page(outlet, answers, some)
            continue
        answer = None
        outlet.write(some)
        await outlet.room()
        await asyncio.sleep(0)  # the next slice costs time that others want, too


async def _page(outlet: Outlet, answers: Answers, ask: Ask) -> object:
    try:
        return await answers.to(ask)
    except Exception:
        outlet.check()  # who has left needs no page, and has no maildrop to have it from
        raise


def at_once(outlet: Outlet, reply: Reply) -> bool:
    """Write a reply that is here as a whole; False, and nothing written, where more of it has to come."""
    text, lines, sent, start_tls = reply
    if sent is None:
        if lines is not None or start_tls:
            return False
        outlet.write(text)
        return True
    content, of_body = sent
    pieces = content.whole() if content.octets <= _AT_ONCE_OCTETS else None
    if pieces is None:
        return False
    outlet.write_together([text, *dressed(pieces, dotted=content.dotted, lines=of_body)])
    return True


async def message(outlet: Outlet, sent: Message) -> None:
    """Send a message, or the top of one, piece by piece, and the final dot; raises Gone as above."""
    content, of_body = sent
    transfer = Transfer(dotted=content.dotted, lines=of_body)
    held = 0
    async for piece in content:
        outlet.write(transfer.feed(piece))
        held += len(piece)
        if held >= _AT_ONCE_OCTETS:
            await outlet.room()
            held = 0
        if transfer.done:
            break
    outlet.write(transfer.finish())
    await outlet.room()
