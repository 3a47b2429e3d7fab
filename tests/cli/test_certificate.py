"""`mailstack certificate obtain`: what it does not ask an authority for, and why none answers."""

from __future__ import annotations

import re

import pytest

from tests.cli.conftest import CommandLine
from tests.support.resolver import free_port


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--name", "foo bar"), 64, '--name "foo bar" is no host name'),
        (("--email", "nonsense"), 65, "'nonsense' is no address"),
    ],
)
def test_what_no_authority_could_take_is_not_asked_for(
    mailstack: CommandLine, options: tuple[str, ...], code: int, said: str
) -> None:
    refused = mailstack("certificate", "obtain", *options)
    assert refused.code == code
    assert said in refused.err
    assert "asking" not in refused.err


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://127.0.0.1:{port}/directory", "connection refused"),
        ("https://nowhere.invalid/directory", "(?:name or service not known|.*name resolution.*)"),
    ],
)
def test_why_an_authority_cannot_be_reached_is_said_in_words(
    mailstack: CommandLine, url: str, why: str
) -> None:
    place = url.format(port=free_port())
    with mailstack.file.open("a") as file:
        file.write(f'\n[acme]\ndirectory = "{place}"\nlisten = ["127.0.0.1:0"]\n')
    refused = mailstack("certificate", "obtain")
    assert refused.code == 69
    pattern = rf"mailstack: the authority at {place} cannot be reached: {why}\n"
    assert re.fullmatch(pattern, refused.err.splitlines(keepends=True)[-1])
