"""A turn of the session and what it asks for, brought together until there is a reply."""

from __future__ import annotations

from mailstack.errors import MailstackError
from mailstack.pop3.answers import Answers
from mailstack.pop3.asks import Ask
from mailstack.pop3.outlet import Outlet
from mailstack.pop3.replies import Reply
from mailstack.pop3.session import Turn


def begin(turn: Turn, answers: Answers) -> Reply | Ask:
    """Run a turn as far as nobody has to be waited for: its reply, or what it waits for.

    Raises what the turn did not foresee.
    """
    try:
        ask = next(turn)
        while True:
            try:
                answer = answers.at_once(ask)
            except MailstackError as error:
                ask = turn.throw(error)
                continue
            if answer is None:
                return ask
            ask = turn.send(answer)
    except StopIteration as end:
        reply: Reply = end.value
        return reply


async def fulfil(turn: Turn, ask: Ask, answers: Answers, outlet: Outlet) -> Reply:
    """Answer `ask` and all that the turn asks after it; its reply.

    Raises Gone where nobody is there any more and more would be asked for, and what the turn did not
    foresee. What was asked for already is told to the turn all the same: a commit has removed mail, or
    failed, whoever has left meanwhile.
    """
    try:
        while True:
            outlet.check()
            try:
                answer = await answers.to(ask)
            except Exception as error:
                ask = turn.throw(error)
            else:
                ask = turn.send(answer)
    except StopIteration as end:
        reply: Reply = end.value
        return reply
