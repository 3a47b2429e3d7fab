"""Password hashes, what fits them, and logins that are remembered."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from passlib.hash import argon2, pbkdf2_sha256, pbkdf2_sha512, sha256_crypt, sha512_crypt

from mailstack.auth import passwords
from mailstack.auth.memory import REMEMBERED_SECONDS, Known, LoginMemory
from mailstack.auth.passwords import Verifier

KNOWN = Known(7, "jones@example.org", "$hash$")


def test_a_hash_fits_its_secret_and_no_other():
    made = passwords.hash_password("pässword with spaces")
    assert made.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.verify("pässword with spaces", made)
    for wrong in ("", "pässword with space", "pässword with spaces ", "PÄSSWORD WITH SPACES", "x" * 100_000):
        assert not passwords.verify(wrong, made)
    assert not passwords.needs_rehash(made)
    assert passwords.hash_password("same") != passwords.hash_password("same")


@pytest.mark.parametrize(
    "older",
    [
        argon2.using(type="ID", memory_cost=256, time_cost=1, parallelism=2, salt_size=20),
        argon2.using(type="I", memory_cost=19 * 1024, time_cost=2, parallelism=1),
        sha256_crypt.using(rounds=1000),
        sha512_crypt.using(rounds=1000),
        pbkdf2_sha256.using(rounds=10),
        pbkdf2_sha512.using(rounds=10),
    ],
)
def test_hashes_of_other_systems_fit_and_are_due_for_renewal(older):
    made = older.hash("secret")
    assert passwords.verify("secret", made)
    assert not passwords.verify("wrong", made)
    assert passwords.needs_rehash(made)


@pytest.mark.parametrize("secret", ["a\0b", "\0", "\udcff", "x" * 5000])
@pytest.mark.parametrize("older", [None, sha256_crypt.using(rounds=1000)])
def test_a_secret_that_no_scheme_takes_is_a_wrong_one(secret, older):
    made = older.hash("secret") if older else passwords.hash_password("secret")
    assert passwords.verify(secret, made) is False


@pytest.mark.parametrize("stored", ["", "$none$", "plain", "{SHA}x", "$argon2id$v=19$m=19456,t=2,p=1$broken"])
def test_what_is_no_hash_fits_nothing(stored):
    assert passwords.verify("secret", stored) is False
    assert passwords.verify("", stored) is False
    assert passwords.verify(stored, stored) is False


_SHORT_OF_MEMORY = """
import resource, sys
from mailstack.auth import passwords
assert passwords.verify("secret", sys.argv[1])
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (8 << 20),) * 2)
passwords.verify("secret", sys.argv[1])
"""


def test_without_memory_for_the_hash_the_password_is_not_called_wrong():
    command = [sys.executable, "-c", _SHORT_OF_MEMORY, passwords.hash_password("secret")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("nacl.exceptions.RuntimeError")


def test_nobodys_hash_costs_what_others_cost_and_fits_nothing():
    nobodys = passwords.nobodys_hash()
    assert passwords.nobodys_hash() == nobodys
    assert nobodys.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert len(nobodys) == len(passwords.hash_password("secret"))
    assert not passwords.verify("", nobodys)
    assert not argon2.verify("", nobodys)  # a hash to others, too


_POLLED = """
import sys
from mailstack.auth import passwords
assert passwords.verify("secret", sys.argv[1]) and not passwords.needs_rehash(sys.argv[1])
assert not passwords.verify("secret", passwords.nobodys_hash())
print(*(name for name in ("passlib", "argon2") if name in sys.modules))
"""


def test_logins_with_hashes_of_our_own_kind_import_no_other_schemes():
    command = [sys.executable, "-c", _POLLED, passwords.hash_password("secret")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "\n"


def test_generated_passwords_can_be_read_aloud():
    made = {passwords.generate_password() for _ in range(200)}
    assert len(made) == 200
    for each in made:
        assert [len(group) for group in each.split("-")] == [4, 4, 4, 4]
        assert not set(each) & set("l1oi0O ")
        assert each == each.lower()


async def test_the_verifier_does_the_same_beside_the_loop():
    verifier = Verifier()
    old = pbkdf2_sha256.using(rounds=10).hash("secret")
    renewed = await verifier.renewed("secret", old, None, iterations=4096)
    assert renewed is not None
    assert await verifier.verify("secret", renewed.password_hash)
    assert not await verifier.verify("wrong", renewed.password_hash)
    assert await verifier.renewed("secret", *renewed, iterations=4096) is None
    verifier.close()


# -- what is remembered --------------------------------------------------------------------------------


def test_only_the_same_name_and_secret_are_recalled():
    memory = LoginMemory()
    memory.remember("jones", "secret", KNOWN)
    assert memory.recall("jones", "secret") == KNOWN
    for name, secret in (
        ("jones", "Secret"),
        ("jone", "ssecret"),
        ("jones ", "secret"),
        ("jones s", "ecret"),
    ):
        assert memory.recall(name, secret) is None
    assert LoginMemory().recall("jones", "secret") is None


def test_neither_name_nor_secret_is_kept():
    memory = LoginMemory()
    memory.remember("jones", "very secret", KNOWN)
    assert b"very secret" not in b"".join(memory._known)
    assert all(len(digest) == 16 for digest in memory._known)


def test_it_is_forgotten_after_a_while(monkeypatch):
    memory = LoginMemory()
    memory.remember("jones", "secret", KNOWN)
    later = time.monotonic() + REMEMBERED_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert memory.recall("jones", "secret") is None


def test_the_oldest_are_forgotten_first(monkeypatch):
    monkeypatch.setattr("mailstack.auth.memory._MOST", 3)
    memory = LoginMemory()
    for name in ("a", "b", "a", "c", "d"):
        memory.remember(name, "secret", KNOWN)
    assert [memory.recall(name, "secret") is not None for name in "abcd"] == [True, False, True, True]
