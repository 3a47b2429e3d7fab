"""How long a guess takes, as figures."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from mailstack.auth import throttle
from mailstack.auth.throttle import Gates
from mailstack.errors import TooManyGuesses
from mailstack.store.logins import Device, History

DAY = 86_400 * 1_000_000
AT = 1000 * DAY


@pytest.mark.parametrize(
    ("peer", "device"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "local"),
        ("unix", "local"),
    ],
)
def test_a_device_is_an_address_or_a_network_that_one_host_has_for_itself(peer: str, device: str) -> None:
    assert throttle.device(peer) == device


def test_the_wait_grows_with_the_failures_of_a_device_up_to_a_bound() -> None:
    waits = [throttle.wait_seconds(History(0, failures, None), AT) for failures in range(100)]
    assert waits[:9] == [0, 0, 0, 0, 0, 1, 2, 4, 8]
    assert max(waits) == 8


def test_the_wait_grows_more_slowly_with_those_of_all_the_world() -> None:
    waits = [throttle.wait_seconds(History(failures, 0, None), AT) for failures in range(1000)]
    assert waits[19] == 0
    assert waits[20] == 1
    assert waits[40] == 16 == max(waits)
    assert all(earlier <= later for earlier, later in itertools.pairwise(waits))


def test_a_device_that_logged_in_within_30_days_never_waits() -> None:
    assert throttle.wait_seconds(History(10**6, 10**6, AT - 29 * DAY), AT) == 0
    assert throttle.wait_seconds(History(10**6, 0, AT - 31 * DAY), AT) == 16


def test_a_poll_of_a_known_device_is_not_worth_a_write() -> None:
    assert throttle.is_news(History(0, 0, None), AT)
    assert not throttle.is_news(History(99, 0, AT - DAY // 2), AT)
    assert throttle.is_news(History(0, 0, AT - 2 * DAY), AT)
    assert throttle.is_news(History(0, 1, AT), AT)  # its failures are forgiven


@pytest.mark.parametrize(
    ("checked", "waited", "elapsed", "failures", "leaves"),
    [
        (0.05, 0, 0.1, 0, 1),
        (0.05, 0, 0.1, 1, 2),
        (0.05, 0, 0.1, 3, 8),
        (0.05, 0, 0.1, 99, 8),
        (0.05, 4, 4.1, 0, 5),
        (1.2, 0, 1.3, 0, 2),  # a slow scheme
        (1.2, 0, 0.1, 0, 2),  # and a quick one, since the other was asked for
        (0.05, 0, 1.2, 0, 2),  # a quick one that had to queue
        (0.05, 0, 3.7, 1, 4),
    ],
)
def test_a_refusal_leaves_on_a_grid(checked, waited, elapsed, failures, leaves) -> None:
    figures = {"checked": checked, "waited": waited, "elapsed": elapsed, "session_failures": failures}
    assert throttle.refusal_seconds(1, **figures) == leaves
    assert throttle.refusal_seconds(0, **figures) == waited


def test_the_slowest_check_of_the_last_minutes_sets_the_pace() -> None:
    pace = throttle.Pace()
    assert [pace.after(0.1, 0), pace.after(1.5, 1), pace.after(0.1, 2), pace.after(99, 3)] == [
        0.1,
        1.5,
        1.5,
        8,
    ]
    assert pace.after(0.1, 602) == 8
    assert pace.after(0.1, 604) == 0.1


def test_what_the_administrator_is_told() -> None:
    rows = [Device("", 25, AT, None), Device("192.0.2.1", 0, None, AT), Device("192.0.2.2", 9, AT, None)]
    failures, wait, until, known = throttle.standing(rows, AT)
    assert (failures, wait, until, known) == (25, 2, AT + 3600 * 1_000_000, ("192.0.2.1",))
    assert throttle.standing([], AT) == (0, 0, None, ())


async def test_a_device_guesses_twice_at_a_time_and_queues_are_bounded() -> None:
    gates = Gates()
    inside = most = refused = 0

    async def guess(key: str) -> None:
        nonlocal inside, most, refused
        try:
            async with gates.passed(key, "192.0.2.1", known=False):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.001)
                inside -= 1
        except TooManyGuesses:
            refused += 1

    await asyncio.gather(*(guess("jo") for _ in range(60)))
    assert (most, refused) == (2, 10)
    most = 0
    await asyncio.gather(*(guess(key) for key in "abc"))  # nobody waits for another name's guesses
    assert most == 3
    assert not gates._gates
