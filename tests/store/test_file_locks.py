"""The lock of a maildrop on one host: one session, across tasks and processes; a death frees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailstack.errors import MaildropInUse, StoreUnavailable
from mailstack.store.file_locks import FileLocks
from tests.support.children import child

HOLDER = """
import asyncio, sys
from pathlib import Path
from mailstack.store.file_locks import FileLocks

locks = FileLocks(Path(sys.argv[1]))
asyncio.run(locks.hold(int(sys.argv[2]), holder="192.0.2.7"))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "maildrops.lock"


async def test_a_maildrop_has_one_session(path):
    locks = FileLocks(path)
    lock = await locks.hold(7, holder="192.0.2.1")
    with pytest.raises(
        MaildropInUse, match=r"^held since \d\d:\d\d:\d\d UTC by a session from 192\.0\.2\.1$"
    ):
        await locks.hold(7, holder="192.0.2.2")
    other = await locks.hold(8, holder="192.0.2.2")
    lock.release()
    again = await locks.hold(7, holder="192.0.2.3")
    lock.release()  # a second time: the lock is somebody else's by now
    with pytest.raises(MaildropInUse, match=r"192\.0\.2\.3"):
        await locks.hold(7, holder="192.0.2.4")
    again.release()
    other.release()
    locks.close()


async def test_another_process_is_kept_out_until_it_dies(path):
    locks = FileLocks(path)
    with child(HOLDER, path, 7, says="held") as process:
        with pytest.raises(MaildropInUse, match=r"192\.0\.2\.7"):
            await locks.hold(7, holder="192.0.2.1")
        (await locks.hold(6, holder="192.0.2.1")).release()
        (await locks.hold(8, holder="192.0.2.1")).release()
        process.kill()
        process.wait()
        (await locks.hold(7, holder="192.0.2.1")).release()
    locks.close()


async def test_closing_lets_everything_go(path):
    locks = FileLocks(path)
    lock = await locks.hold(7, holder="192.0.2.1")
    locks.close()
    lock.release()  # a session that ends after the store was closed
    with child(HOLDER, path, 7, says="held"):
        pass


async def test_a_holder_with_a_long_name(path):
    locks = FileLocks(path)
    await locks.hold(1, holder="ü" * 500)
    with pytest.raises(MaildropInUse, match="üüü"):
        await locks.hold(1, holder="")
    locks.close()


async def test_a_lock_file_that_cannot_be_made(tmp_path):
    with pytest.raises(StoreUnavailable, match="No such file"):
        FileLocks(tmp_path / "none" / "maildrops.lock")
