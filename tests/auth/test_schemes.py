"""Password hashes that other servers made."""

from __future__ import annotations

import subprocess
from shutil import which

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailstack.auth import passwords, schemes
from mailstack.errors import BadPassword

# Each is of `geheim`, by openssl, hashlib or passlib as Dovecot would write it.
HASHES = [
    "{SHA512-CRYPT}$6$FsAltFsA$Q7.HhjV1gfXzgHsAI23lpsyAN992MyGOu3kZAnbhBGDyB3U4h3d50FcMBD0V1L/tXwU626SJAZ3KrLk6m9H6H.",
    "$5$FsAltFsA$DAXMDC8mQoWukd2TvsNltRBiayAHVmB3am3aNx5ygx0",
    "{CRYPT}$1$FsAltFsA$rK039cpWptpg6WoWGnWdR1",
    "{md5-crypt}$1$FsAltFsA$rK039cpWptpg6WoWGnWdR1",
    "{SSHA}h2GMWvRxn2OA4L73pPjxHrWPuIdhYmNk",
    "{ssha256}Rax17WZuFRGaYrNn58ItIYWCJOzsinmsBcuRAdpYK3BhYmNk",
    "{SSHA512}nDGjk91PABq/QuVqyMqKwj+sZl0iEojvHUml/J15MJx+yi6D3hJ/W1agOIdFq9GXeGAKhI5mc23jSeN3n9BI72FiY2Q=",
    "{SMD5}QsiJ4DL26qDK58e+zB3qAGFiY2Q=",
    "{SHA}kGByAB793z4R5tK1eC9Hd/4Dhzk=",
    "{LDAP-MD5}6GNuoBPmgvr2H1bOHLGrXA==",
    "{PBKDF2}$1$FsAlt123/+$500$18110403b893e1ab36372a056653ebffa38d75a5",
    "{BLF-CRYPT}$2y$04$UbHuw54CoEseNdALmba/IOGhcp7HG1GW4UYKg.5yo/08R5.G203Zi",
    "$2a$04$iWAlO6XpEA7DLIK4G53LuuUmRWVcWBuJeBAVKaTdrbjDZKMcWSrIK",
    "{CRYPT}$2b$04$QFBN4DxYzICO.sTO88/sCeW.Lv1znIkvsvsZnWoRMnL.CdPawBr.y",
    "{ARGON2ID}$argon2id$v=19$m=64,t=1,p=4$X2utNaYUYkzpPWcs5dwb4w$RCq5K//XCZRMsTq3Eo3/1qRCagI/0H59P+AoHEGYnbw",
    "{ARGON2I}$argon2i$v=19$m=64,t=1,p=4$eQ8hxJiT0hqj9F7rfY9Rag$mZCpPx6oD/jtIvRkd2Yh56CJaOAVCpa3nhYdk7vqqVk",
    "$pbkdf2-sha256$10$TEnJWUtJSem91xpDyDlHqA$TiWTJXfeB1vtAJonNPbpovHd1Diy9HvvF84aOJ80iqM",
]


def adopted(text: str) -> str:
    """As an import takes it."""
    schemed = schemes.split(text)
    assert schemed is not None
    return schemes.adopted(*schemed)


@pytest.mark.parametrize("text", HASHES)
def test_the_password_fits_the_hash_and_nothing_else_does(text: str) -> None:
    kept = adopted(text)
    assert passwords.verify("geheim", kept)
    assert passwords.needs_rehash(kept)
    for wrong in ("", "Geheim", text, kept, "geheim\0", "x" * 73, "ü" * 37, "x" * 5000, "\udcff"):
        assert not passwords.verify(wrong, kept)


def argon2(costs: str) -> str:
    return f"$argon2id$v=19${costs}${'a' * 21}g${'a' * 42}g"


@pytest.mark.parametrize(
    "text",
    [
        argon2("m=65536,t=3,p=1"),  # Dovecot's own, and what is the most
        argon2("m=65536,t=6,p=8"),
        "$5$rounds=200000$salt$" + "a" * 42 + "0",
        "$6$rounds=200000$salt$" + "a" * 85 + "0",
    ],
)
def test_a_check_may_take_so_much(text: str) -> None:
    assert adopted(text) == text


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7", "yescrypt hashes"),
        ("{CRYPT}$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX", "yescrypt hashes"),
        ("{CRYPT}ab01FAX.bQRSU", "a CRYPT hash without an $id$"),
        ("{SHA512-CRYPT}geheim", "a SHA512-CRYPT hash without an $id$"),
        ("{cram-md5}9186d855e11eba527a7a52ca82b313e1", "a hash of the scheme CRAM-MD5"),
        ("{SSHA512.HEX}00", "a hash of the scheme SSHA512.HEX"),
        ("$md5$abc$def", "is of no kind"),
        ("$2x$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e", "no whole CRYPT hash"),
        ("$6$salt$", "no whole CRYPT hash"),
        ("$6$s\u00e4lt$" + "a" * 86, "no whole CRYPT hash"),
        ("{SSHA}x", "no whole SSHA hash"),
        ("{PBKDF2}$1$salt$0$" + "a" * 40, "no whole PBKDF2 hash"),
        ("{PBKDF2}$6$salt$" + "a" * 86, "no whole PBKDF2 hash"),
        ("{BLF-CRYPT}$2y$15$" + "a" * 53, "this BLF-CRYPT hash would take too long"),
        ("$5$rounds=200001$salt$" + "a" * 43, "would take too long"),
        ("$6$rounds=200001$salt$" + "a" * 86, "would take too long"),
        ("{ARGON2ID}" + argon2("m=65537,t=1,p=1"), "would take too long"),
        (argon2("m=65536,t=7,p=1"), "would take too long"),
        (argon2("m=65536,t=6,p=9"), "would take too long"),
        (argon2("m=65536,t=6,p=4000"), "would take too long"),
    ],
)
def test_what_cannot_be_checked_is_refused_with_advice_and_is_not_repeated(text: str, advice: str) -> None:
    with pytest.raises(BadPassword) as refused:
        adopted(text)
    assert advice in str(refused.value)
    assert text[-8:] not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "geheim", "{}x", "{a b}c", "x{SHA}y", "$", "$$", "$ 5$x", "pa$6$x", "{", "$1", "{1}x"]
)
def test_a_password_is_no_hash(text: str) -> None:
    assert schemes.split(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *HASHES,
        "{PLAIN}secret",
        "{clear}secret",
        "{SSHA512.hex}00",
        "{CRYPT}ab01FAX.bQRSU",
        "{CRAM-MD5}9186d855e11eba527a7a52ca82b313e1",
        "{scram-sha-256}4096,salt,a,b",
        "$6$salt$hash",
        "$y$j9T$a",
        "$gy$j9T$a",
        "$7$CU..../....a$b",
        "$md5$a$b",
        "$sha1$1$a$b",
        "$2x$05$a",
    ],
)
def test_what_says_a_known_scheme_is_a_hash(text: str) -> None:
    assert schemes.is_hash(text)


@pytest.mark.parametrize(
    "text", ["{Blue}horse-7", "$ab$horse", "{Blue.hex}00", "$2026$", "$y2$a", "geheim", ""]
)
def test_what_looks_like_a_hash_and_says_no_known_scheme_is_none(text: str) -> None:
    assert not schemes.is_hash(text)


@pytest.mark.skipif(not which("doveadm"), reason="no Dovecot here")
def test_all_of_dovecots_schemes_are_known() -> None:
    listed = subprocess.run(
        ["doveadm", "pw", "-l"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert [each for each in listed if not schemes.is_hash(f"{{{each}}}x")] == []


SCHEMES = st.sampled_from(
    [
        "crypt",
        "SHA512-CRYPT",
        "BLF-CRYPT",
        "ARGON2ID",
        "SSHA",
        "sha",
        "SSHA512",
        "SMD5",
        "PBKDF2",
        "PLAIN",
        "X",
    ]
)
CUT = st.builds(
    lambda text, start, end: text[start:end], st.sampled_from(HASHES), st.integers(0), st.integers(0)
)
TEXTS = st.text() | CUT | st.from_regex(r"\$[a-z0-9-]{1,8}\$[a-z0-9=,$./]{0,100}")


@given(SCHEMES, st.text())
def test_any_text_can_stand_behind_a_scheme(scheme: str, text: str) -> None:
    assert schemes.split(f"{{{scheme}}}{text}") == (scheme.upper(), text)


@given(SCHEMES, TEXTS)
@example("CRYPT", "$1$$" + "a" * 22)
def test_any_text_is_a_hash_that_can_be_checked_or_is_refused(scheme: str, text: str) -> None:
    try:
        kept = schemes.adopted(scheme.upper(), text)
    except BadPassword:
        return
    assert passwords.context().identify(kept) is not None
    assert passwords.needs_rehash(kept)
    assert not passwords.verify(text, kept)
