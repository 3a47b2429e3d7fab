from __future__ import annotations

import errno
import os
import socket

import pytest

from mailstack import values
from mailstack.errors import CannotListen
from mailstack.service import sockets


def why_not(address: str) -> str:
    with pytest.raises(CannotListen) as refused:
        sockets.bind({"lmtp": [values.listen(address)]})
    return str(refused.value)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("[fe80::1%no-such]:2525", "name or service not known"),  # which is no errno
        ("unix:/proc/self/no-such-folder/lmtp", "no such file or directory"),
        ("unix:/etc/passwd", "address already in use"),
    ],
)
def test_it_is_told_why_an_address_cannot_be_listened_on(address: str, why: str) -> None:
    assert why_not(address) == f"cannot listen on {address}: {why}"


def test_who_may_not_make_a_unix_socket_is_told_nothing_of_ports() -> None:
    assert why_not("unix:/sys/lmtp").endswith(("operation not permitted", "permission denied"))


def test_a_service_that_got_no_socket_is_told_of_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # as RestrictAddressFamilies= does
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", refuse)
    assert why_not("[::]:25").endswith("the port's socket unit is off, or has failed")
