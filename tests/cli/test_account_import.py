"""`mailstack account import`: many accounts of one spreadsheet, or none."""

from __future__ import annotations

from pathlib import Path

import pytest
from passlib.hash import sha512_crypt
from sqlalchemy import select

from mailstack.store.engine import Database
from mailstack.store.tables import account
from tests.cli.conftest import CommandLine, csv, fits


def test_import_makes_an_account_of_every_row(
    mailstack: CommandLine, store: Database, tmp_path: Path
) -> None:
    file = csv(
        tmp_path, 'address,password\njo@example.org,secret\n"Kim@example.org","with, comma"\nann,gr\u00fcn\n'
    )
    assert mailstack.good("account", "import", file).out == "3 accounts can receive and fetch mail now\n"
    assert fits(store, "jo", "secret")
    assert fits(store, "kim", "with, comma")
    assert fits(store, "ann", "gr\u00fcn")


def test_import_takes_quotas_and_what_spreadsheets_write(mailstack: CommandLine, tmp_path: Path) -> None:
    text = "\ufeffAddress,Password,Quota\r\njo@example.org,secret,2GiB\r\nkim@example.org,secret,\r\n"
    assert mailstack.good("account", "import", csv(tmp_path, text), "--json").json == {"accounts": 2}
    listed = mailstack.good("account", "list", "--json").json
    assert [each["quota_octets"] for each in listed] == [2 << 30, None]


def test_a_quota_of_none_is_no_limit_however_it_is_given(mailstack: CommandLine, tmp_path: Path) -> None:
    mailstack.good("domain", "quota", "example.org", "1GiB")
    for name, words in {"a": (), "b": ("--quota", "none"), "c": ("--quota", "default")}.items():
        mailstack.good("account", "add", name, *words)
    text = "address,password,quota\nd,secret,\ne,secret,none\nf,secret, default \n"
    mailstack.good("account", "import", csv(tmp_path, text))
    for name, word in {"g": "none", "h": "default"}.items():
        mailstack.good("account", "add", name, "--quota", "2GiB")
        mailstack.good("account", "quota", name, word)
    listed = mailstack.good("account", "list", "--json").json
    unlimited = {each["address"][0] for each in listed if each["quota_octets"] is None}
    assert (len(listed), unlimited) == (8, {"b", "e", "g"})
    assert {each["quota_octets"] for each in listed} == {None, 1 << 30}


def test_import_takes_semicolons_where_spreadsheets_write_them(
    mailstack: CommandLine, tmp_path: Path
) -> None:
    text = "address;password;quota\r\njo@example.org;with, comma;2GiB\r\nkim@example.org;secret;\r\n"
    assert mailstack.good("account", "import", csv(tmp_path, text), "--json").json == {"accounts": 2}


def test_import_takes_the_hashes_of_another_server(
    mailstack: CommandLine, store: Database, tmp_path: Path
) -> None:
    hashed = sha512_crypt.using(rounds=1000).hash("geheim")
    text = (
        "address,password_hash,password,quota\n"
        f"lea@example.org,{{SHA512-CRYPT}}{hashed},,2GiB\njo,  {hashed} ,,\n"
        'kim,"{plain}{X}, y ",,\nann,,own,\n'
    )
    imported = mailstack.good("account", "import", csv(tmp_path, text))
    assert imported.out == "4 accounts can receive and fetch mail now\n"
    assert imported.err.endswith("SCRAM is offered after the last\n")
    for name, secret in (("lea", "geheim"), ("jo", "geheim"), ("kim", "{X}, y "), ("ann", "own")):
        assert fits(store, name, secret)
    assert not fits(store, "lea", f"{{SHA512-CRYPT}}{hashed}")
    assert not fits(store, "lea", hashed)
    with store.reading() as connection:
        keys = connection.execute(select(account.c.scram_keys).order_by(account.c.id)).scalars().all()
    assert [each is None for each in keys] == [True, True, False, False]


@pytest.mark.parametrize("text", ["{SHA512-CRYPT}$6$salt$hash", "$6$salt$hash", "{PLAIN}secret", "$y$j9T$a"])
def test_a_hash_is_never_taken_for_a_password(mailstack: CommandLine, tmp_path: Path, text: str) -> None:
    for refused in (
        mailstack("account", "import", csv(tmp_path, f"address,password\njo,{text}\n")),
        mailstack("account", "add", "jo", "--password-stdin", stdin=text.encode()),
    ):
        assert refused.code == 65
        assert "this is a password hash, no password" in refused.err
    assert mailstack.good("account", "list", "--json").json == []


@pytest.mark.parametrize("text", ["{Blue}horse-7", "$ab$horse"])
def test_a_password_may_look_like_a_hash(
    mailstack: CommandLine, store: Database, tmp_path: Path, text: str
) -> None:
    mailstack.good("account", "import", csv(tmp_path, f"address,password\njo,{text}\n"))
    mailstack.good("account", "add", "ann", "--password-stdin", stdin=text.encode())
    assert fits(store, "jo", text)
    assert fits(store, "ann", text)


def test_import_reads_standard_input(mailstack: CommandLine) -> None:
    mailstack.good("account", "import", "-", stdin=b"\xef\xbb\xbfaddress,password\r\njo,secret\r\n")
    assert len(mailstack.good("account", "list", "--json").json) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jo@example.org,secret\n", "line 1: the header has to be address,password"),
        ("", "line 1: the header has to be"),
        ("address,password,shoe\n", "line 1: the header has to be"),
        ("address,password\njo@@example.org,x\n", "line 2: "),
        ("address,password\nok@example.org,x\nann@example.org,\n", "line 3: the password is empty"),
        ("address,password\nann@example.org,a,b\n", "line 2: there are more cells than the header has"),
        ("address,password,quota\nann@example.org,a,lots\n", 'line 2: "lots" is not a size'),
        ("address,password\njo@example.org,x\n", "line 2: jo@example.org is an account already"),
        ("address,password\na@example.org,x\na@example.org,y\n", "a@example.org is twice in the list"),
        ("address,password\na@example.net,x\n", "example.net is none of our domains"),
        ("address,quota,password\na@example.org,,x\n", "line 1: the header has to be"),
        ("address,password_hash\na@example.org,$y$j9T$x$y\n", "line 2: yescrypt hashes cannot be checked"),
        ("address,password_hash\na@example.org,secret\n", "line 2: the hash begins with no {SCHEME}"),
        ("address,password_hash\na@example.org,\n", "line 2: the password is empty"),
        ("address,password_hash\na@example.org,{PLAIN}\n", "line 2: the password is empty"),
        ("address,password,password_hash\na@example.org,x,$1$a$b\n", "line 2: there is a password as well"),
        ('address,password\n"a@example.org,x\n', "this is not CSV"),
        (b"address,password\na@example.org,\xff\n", "not UTF-8"),
    ],
)
def test_a_mistake_in_an_import_makes_no_account(
    mailstack: CommandLine, tmp_path: Path, text: str | bytes, said: str
) -> None:
    mailstack.good("account", "add", "jo@example.org")
    refused = mailstack("account", "import", csv(tmp_path, text))
    assert refused.code in (65, 67)
    assert said in refused.err
    assert len(mailstack.good("account", "list", "--json").json) == 1


def test_all_mistakes_of_an_import_are_said_but_not_thousands(mailstack: CommandLine, tmp_path: Path) -> None:
    text = "address,password\n" + "".join(f"u{n}@example.org,\n" for n in range(50))
    refused = mailstack("account", "import", csv(tmp_path, text)).err.splitlines()
    assert len(refused) == 22
    assert refused[-2:] == ["mailstack: and 30 more problems", "mailstack: no account was made"]


def test_a_file_that_is_not_there_is_named(mailstack: CommandLine, tmp_path: Path) -> None:
    refused = mailstack("account", "import", tmp_path / "nobody.csv")
    assert (refused.code, refused.err) == (
        66,
        f"mailstack: {tmp_path}/nobody.csv: No such file or directory\n",
    )
