"""A certificate that is replaced on disk is the next client's, and nobody else's trouble."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mailstack.service import tls
from mailstack.service.contexts import TlsContext
from mailstack.service.watching import CertificateWatch

SECONDS = 0.02


class Files:
    """A certificate and its key on disk, and the context that watches them."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "certificate.pem", folder / "private-key.pem"
        self.replace("one.example.org")
        self.context = TlsContext(self.certificate, self.key)

    def replace(self, name: str) -> None:
        tls.write_self_signed(self.certificate, self.key, name)

    @property
    def served(self) -> ssl.SSLContext:
        return self.context()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[CertificateWatch]:
        watch = CertificateWatch((self.certificate, self.key), (self.context,), seconds=SECONDS)
        try:
            yield watch
        finally:
            watch.close()

    async def wait_for_another_than(self, old: ssl.SSLContext) -> None:
        await until(lambda: self.served is not old)


async def until(condition: Callable[[], bool]) -> None:
    """Let the watch look again and again until the condition holds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(SECONDS / 2)
    pytest.fail("waited in vain")


@pytest.fixture(autouse=True)
def log_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mailstack")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


async def test_new_files_are_used_without_being_asked(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    async with files.watched():
        old = files.served
        files.replace("two.example.org")
        await files.wait_for_another_than(old)
        await asyncio.sleep(5 * SECONDS)
    assert said(caplog) == ["certificate reloaded"]


async def test_a_link_that_is_moved_counts_too(files: Files, tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    files.certificate, files.key = live / "fullchain.pem", live / "privkey.pem"
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        tls.write_self_signed(folder / "c.pem", folder / "k.pem", "mail.example.org")
    files.certificate.symlink_to(tmp_path / "1" / "c.pem")
    files.key.symlink_to(tmp_path / "1" / "k.pem")
    files.context = TlsContext(files.certificate, files.key)
    async with files.watched():
        old = files.served
        for link, target in ((files.certificate, "c.pem"), (files.key, "k.pem")):
            draft = live / "draft"
            draft.symlink_to(tmp_path / "2" / target)
            draft.rename(link)
        await files.wait_for_another_than(old)


@pytest.mark.parametrize("broken", ["gone", "garbage", "another key"])
async def test_broken_files_keep_the_old_context_and_are_told_of_once(
    files: Files, broken: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async with files.watched():
        old = files.served
        if broken == "gone":
            files.certificate.unlink()
        elif broken == "garbage":
            files.certificate.write_text("-----BEGIN CERTIFICATE-----\n")
        else:
            tls.write_self_signed(tmp_path / "other.pem", files.key, "mail.example.org")
        await until(lambda: bool(said(caplog)))
        await asyncio.sleep(10 * SECONDS)
        assert said(caplog) == ["certificate not reloaded"]
        assert files.served is old
        files.replace("three.example.org")
        await files.wait_for_another_than(old)
    assert said(caplog)[-1] == "certificate reloaded"


async def test_two_contexts_change_together_or_not_at_all(files: Files) -> None:
    good = TlsContext(files.certificate, files.key)
    first = good()
    with CertificateOfAnother(files):
        watch = CertificateWatch((files.certificate, files.key), (good, files.context), seconds=60)
        watch.reload()
        watch.close()
    assert good() is first


class CertificateOfAnother:
    """While it lasts, the key belongs to another certificate."""

    def __init__(self, files: Files) -> None:
        self._key = files.key
        self._octets = files.key.read_bytes()

    def __enter__(self) -> None:
        folder = self._key.parent
        tls.write_self_signed(folder / "other.pem", self._key, "mail.example.org")

    def __exit__(self, *_: object) -> None:
        draft = self._key.with_suffix(".back")
        draft.write_bytes(self._octets)
        os.replace(draft, self._key)
