"""The lists of a maildrop, as they are made of the one text that the database gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailstack.store import listing


@given(numbers=st.lists(st.integers(0, 300) | st.integers(2**32 - 2, 2**63 - 1), max_size=50))
def test_numbers_of_any_size_are_kept(numbers):
    assert list(listing._numbers(" ".join(map(str, numbers)))) == numbers


def test_small_numbers_take_four_octets():
    assert listing._numbers("1 4294967295").itemsize == 4
