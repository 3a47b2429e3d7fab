"""A turn of the session and what it asks for, brought together until there is a reply."""

from __future__ import annotations

from typing import cast

from mailstack.pop3.answers import Answers
from mailstack.pop3.asks import Ask
from mailstack.pop3.outlet import Outlet
from mailstack.pop3.replies import Reply
from mailstack.pop3.session import Turn


async def fulfil(turn: Turn, ask: Ask, answers: Answers, outlet: Outlet) -> Reply:
    """Answer `ask` and all that the turn asks after it; its reply.

    Raises Gone when nobody is there to be answered any more, and what the turn did not foresee.
    """
    try:
        while True:
            try:
                answer = await answers.to(ask)
            except Exception as error:
                outlet.check()
                ask = turn.throw(error)
            else:
                outlet.check()
                ask = turn.send(answer)
    except StopIteration as end:
        return cast(Reply, end.value)
