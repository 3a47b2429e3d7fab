"""Which maildrops take a message for a name that leads to them, by their quotas.

One full maildrop must not keep mail for a group from the others, nor may its owner lose what the sender was
told is delivered: it takes the group's mail for as long as somebody has room, and only where it has twice
its quota is that refused to all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mailstack.mail.envelope import Bound
from mailstack.store.routing import Reached

_GROUP_TIMES: Final = 2


def in_the_way(group: Sequence[Reached], octets: int = 0) -> Sequence[Reached]:
    """Those because of whom all of the group are refused a message of so many octets; none: it is taken."""
    times = _times(group)
    if not any(has_room(each, octets) for each in group):
        return group
    return [each for each in group if not has_room(each, 0, times=times)]


def bounds(group: Sequence[Reached]) -> dict[int, Bound]:
    """With what each account, by its id, takes no more of the group's mail, whoever else does."""
    times = _times(group)
    return {each.account_id: _bound(each, times) for each in group}


def has_room(reached: Reached, octets: int, *, messages: int = 1, times: int = 1) -> bool:
    """Whether so many octets in so many messages fit into so many times its quotas."""
    most_octets, most_messages = _bound(reached, times)
    if most_messages is not None and reached.messages + messages > most_messages:
        return False
    return most_octets is None or reached.octets + octets < most_octets


def _times(group: Sequence[Reached]) -> int:
    return 1 if len(group) == 1 else _GROUP_TIMES


def _bound(reached: Reached, times: int) -> Bound:
    octets, messages = reached.quota_octets, reached.quota_messages
    return (None if octets is None else times * octets, None if messages is None else times * messages)
