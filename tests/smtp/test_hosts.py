"""What a client may call itself by HELO, and what becomes of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailstack.errors import BadParameter
from mailstack.mail.address import MAX_DOMAIN_OCTETS
from mailstack.smtp import commands

PRINTABLE = st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" ")


@given(st.text(max_size=300) | st.text(PRINTABLE, max_size=60))
def test_any_name_that_can_be_printed_is_taken(text: str) -> None:  # RFC 5321 §4.1.4
    argument = text.strip()
    try:
        (name,) = commands.host(argument)
    except BadParameter:
        bare = argument.removesuffix(".")
        assert not bare or not bare.isprintable() or len(bare.encode()) > MAX_DOMAIN_OCTETS
    else:
        assert name.isprintable()
        assert 0 < len(name.encode()) <= MAX_DOMAIN_OCTETS
