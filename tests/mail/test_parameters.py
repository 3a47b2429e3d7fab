"""Parameters of MAIL and RCPT: esmtp-param of RFC 5321 §4.1.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.errors import BadParameter
from mailstack.mail.address import parse_parameters


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("", {}),
        ("SIZE=1000", {"SIZE": "1000"}),
        ("size=1 Body=8BitMIME SMTPUTF8", {"SIZE": "1", "BODY": "8BitMIME", "SMTPUTF8": None}),
        ("X-A=b+c@d", {"X-A": "b+c@d"}),
        ("AUTH=<>", {"AUTH": "<>"}),
        ("ORCPT=rfc822;jos+C3@x", {"ORCPT": "rfc822;jos+C3@x"}),
        ("ORCPT=utf-8;josé@x", {"ORCPT": "utf-8;josé@x"}),  # RFC 6531 §3.3
        ("  SIZE=1   BODY=7BIT ", {"SIZE": "1", "BODY": "7BIT"}),
    ],
)
def test_parameters_are_found_by_keyword(text: str, parameters: dict[str, str | None]) -> None:
    assert parse_parameters(text) == parameters


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SIZE=", "an empty value"),
        ("=1", "an empty keyword"),
        ("-X=1", "a keyword begins with a letter or digit"),
        ("SI_ZE=1", "no underscore in a keyword"),
        ("SIZE=1=2", "no = in a value"),
        ("SIZE=1 size=2", "twice"),
        ("SIZE=1\tBODY=7BIT", "TAB does not separate"),
        ("SIZE=1\u00a0\u2028", "a line separator"),
        ("SIZE=\x001", "NUL"),
        ("BODY=7BIT\n", "LF at the end"),
        ("SIZÉ=1", "a keyword is ASCII"),
    ],
)
def test_bad_parameters_are_refused(text: str, reason: str) -> None:
    with pytest.raises(BadParameter):
        pytest.fail(f"{parse_parameters(text)}: {reason}")


@given(
    st.dictionaries(
        st.from_regex(r"[0-9A-Z][0-9A-Z\-]{0,8}", fullmatch=True),
        st.none() | st.from_regex(r"[!-<>-~]{1,9}", fullmatch=True),
    )
)
def test_parameters_survive_being_written(parameters: dict[str, str | None]) -> None:
    words = [key if value is None else f"{key}={value}" for key, value in parameters.items()]
    assert parse_parameters(" ".join(words)) == parameters


@given(st.text(max_size=40))
def test_no_text_makes_the_parameter_parser_fail_otherwise(text: str) -> None:
    try:
        parameters = parse_parameters(text)
    except BadParameter:
        return
    assert all(key.isascii() and key == key.upper() for key in parameters)
