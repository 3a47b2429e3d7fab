"""`mailstack domain` and `mailstack alias`."""

from __future__ import annotations

import pytest

from tests.cli.conftest import CommandLine


def test_domains_come_and_go(mailstack: CommandLine) -> None:
    assert mailstack.good("domain", "add", "Example.NET").out == "example.net is one of our domains now\n"
    listed = mailstack.good("domain", "list", "--json").json
    assert [each["name"] for each in listed] == ["example.net", "example.org"]
    assert (
        mailstack.good("domain", "remove", "example.net").out
        == "example.net is none of our domains any more\n"
    )
    mailstack.good("domain", "remove", "example.org")
    listed = mailstack.good("domain", "list")
    assert (listed.out, listed.err) == ("", "there are no domains yet; mailstack domain add makes one\n")


def test_a_renamed_domain_is_listed_with_its_old_name(mailstack: CommandLine) -> None:
    mailstack.good("account", "add", "jo@example.org")
    mailstack.good("domain", "rename", "example.org", "example.net")
    lines = mailstack.good("domain", "list").out.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["example.net", "1", "0", "0", "0", "B"],
        ["example.org", "0", "0", "0", "0", "B", "old", "name", "of", "example.net"],
    ]
    assert mailstack.good("account", "show", "jo@example.org", "--json").json["address"] == "jo@example.net"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("domain", "add", "example.org"), 73, "example.org is one of our domains already"),
        (("domain", "add", "a b"), 65, "'a b' is no domain like example.org: "),
        (("domain", "add", "192.0.2.1"), 65, "192.0.2.1 ends with a number"),
        (("domain", "rename", "example.org", "192.0.2.1"), 65, "192.0.2.1 ends with a number"),
        (("account", "list", "bad..x"), 65, "'bad..x' is no domain like example.org: "),
        (("domain", "remove", "example.net"), 67, "example.net is none of our domains"),
        (("domain", "remove", "example.org"), 65, "example.org still has 2 accounts"),
        (("domain", "rename", "example.net", "a.example"), 67, "example.net is none of our domains"),
        (("alias", "add", "info", "jo@example.net"), 65, "jo@example.net is outside our domains"),
        (("alias", "add", "info", "ann"), 65, "ann@example.org is neither an account nor an alias"),
        (("alias", "add", "info"), 64, "Missing argument 'TARGET...'"),
        (("alias", "add", "jo", "kim"), 73, "jo@example.org is an account"),
        (("alias", "add", "@example.net", "kim"), 67, "example.net is none of our domains"),
        (("alias", "add", "@", "kim"), 65, "is no address"),
        (("alias", "remove", "info"), 67, "there is no alias info@example.org"),
        (("alias", "list", "example.net"), 67, "example.net is none of our domains"),
    ],
)
def test_refusals_are_one_sentence_and_a_code(
    mailstack: CommandLine, arguments: tuple[str, ...], code: int, said: str
) -> None:
    mailstack.good("account", "add", "jo")
    mailstack.good("account", "add", "kim")
    refused = mailstack(*arguments)
    assert (refused.code, refused.out) == (code, "")
    assert said in refused.err
    assert refused.err.count("\n") == 1


def test_an_alias_that_ends_logins_with_its_name_says_so(jo: CommandLine) -> None:
    for arguments, ends in (
        (("info", "ann"), False),  # nobody logged in with it before
        (("info", "ann"), False),
        (("info", "jo"), True),
        (("info", "jo"), False),  # nor did anybody now
        (("all", "ann", "jo"), False),
        (("@example.org", "ann", "jo"), False),
    ):
        said = jo.good("alias", "add", *arguments).err
        assert ("info@example.org leads to several accounts now: nobody can log in" in said) == ends


def test_aliases_with_several_targets_and_a_catch_all(mailstack: CommandLine) -> None:
    mailstack.good("account", "add", "jo")
    mailstack.good("account", "add", "kim")
    said = mailstack.good("alias", "add", "team@example.org", "jo", "kim@example.org").out
    assert said == "mail for team@example.org goes to jo@example.org, kim@example.org\n"
    mailstack.good("alias", "add", "@example.org", "team")
    assert mailstack.good("alias", "list", "--json").json == [
        {"address": "@example.org", "targets": ["team@example.org"]},
        {"address": "team@example.org", "targets": ["jo@example.org", "kim@example.org"]},
    ]
    assert mailstack.good("alias", "list", "example.org").out.splitlines()[1].split() == [
        "@example.org",
        "team@example.org",
    ]
    left = mailstack.good("alias", "remove", "team", "jo").out
    assert left == "mail for team@example.org goes to kim@example.org\n"
    assert mailstack.good("alias", "remove", "@example.org").out == "@example.org is no alias any more\n"
    mailstack.good("alias", "remove", "team")
    listed = mailstack.good("alias", "list")
    assert (listed.out, listed.err) == ("", "there are no aliases\n")


def test_settings_that_name_a_domain_are_told_when_it_is_renamed_and_removed(jo: CommandLine) -> None:
    config = jo.file.read_text()
    jo.file.write_text(f'postmaster = "jo@example.org"\n{config}')
    said = jo.good("domain", "rename", "example.org", "example.net")
    for setting in ("default_domain", "postmaster"):
        assert f"{setting} in {jo.file} still names example.org: change it before that name goes" in said.err
    said = jo.good("domain", "remove", "example.org")
    assert f"default_domain in {jo.file} still names example.org: change it, too\n" in said.err
    found = jo("doctor", "--offline", "--json").json["findings"]
    told = {each["subject"]: each for each in found if each["check"] == "accounts"}
    assert told["default_domain"]["level"] == "wrong"
    assert told["default_domain"]["what"] == "example.org is none of our domains"
    assert 'default_domain = "example.net"' in told["default_domain"]["mend"]
    assert told["postmaster"]["what"] == "there is no account or alias jo@example.org"
    # The nightly mail finds a postmaster all the same.
    assert "the postmaster has mail about it" in jo.good("doctor", "--nightly", "--offline").out
    jo.file.write_text(config.replace("example.org", "example.net"))
    assert jo.good("maildrop", "list", "jo", "--json").json
    found = jo("doctor", "--offline", "--json").json["findings"]
    assert [each["level"] for each in found if each["check"] == "accounts"] == ["ok"]


def test_a_postmaster_is_known_by_any_name(jo: CommandLine) -> None:
    jo.good("alias", "add", "boss", "jo")
    jo.good("domain", "rename", "example.org", "example.net")
    config = jo.file.read_text()
    for name in ("JO@example.net", "boss@example.org", "jo+mail@example.net"):
        jo.file.write_text(f'postmaster = "{name}"\n{config}')
        found = jo("doctor", "--offline", "--json").json["findings"]
        assert [each["subject"] for each in found if each["check"] == "accounts"] == ["accounts"]


def test_a_star_is_no_catch_all(jo: CommandLine) -> None:
    for command in ("add", "remove"):
        refused = jo("alias", command, "*@example.org", "jo")
        assert refused.code == 65
        assert "a catch-all is written @example.org; for an address of that name, quote it" in refused.err
    assert jo.good("alias", "add", '"*"@example.org', "jo").out.endswith("goes to jo@example.org\n")
