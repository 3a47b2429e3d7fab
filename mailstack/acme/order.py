"""One order at an ACME authority (RFC 8555 §7.4), from the account to the chain; certbot's library speaks."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import josepy.errors
from acme import challenges, client, crypto_util, errors, messages
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from josepy.jwk import JWKRSA
from requests.exceptions import RequestException, SSLError, Timeout

from mailstack import __version__
from mailstack.acme.challenges import answering
from mailstack.errors import AcmeFailed
from mailstack.files import write_whole

_PATIENCE: Final = timedelta(minutes=2)
_KEY_BITS: Final = 2048
_ATTEMPTS: Final = 4
"""A nonce may be refused at any time and the request is to be sent again (RFC 8555 §6.5)."""


class Issued(NamedTuple):
    """What the authority gave, and the key that it is for; both PEM."""

    chain: bytes
    private_key: bytes


class _Network(client.ClientNetwork):
    """The library's own tries twice."""

    def post(self, *args: Any, **kwargs: Any) -> Any:
        for _ in range(_ATTEMPTS):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)


def issue(
    names: Sequence[str],
    *,
    directory_url: str,
    email: str | None,
    folder: Path,
    sockets: Sequence[socket.socket],
) -> Issued:
    """Have a certificate for these host names issued; the account's key is kept in `folder`.

    `sockets` are bound to port 80 of what the names point to. Raises AcmeFailed.
    """
    with _failures_told(names, directory_url):
        acme = _account(directory_url, email, folder)
        private_key = _pem(ec.generate_private_key(ec.SECP256R1()))
        order = acme.new_order(crypto_util.make_csr(private_key, list(names)))
        # What the authority has checked lately it need not check again.
        wanted = [
            _http_01(each) for each in order.authorizations if each.body.status != messages.STATUS_VALID
        ]
        with answering(sockets, dict(_answer(challenge, acme.net.key) for challenge in wanted)):
            for challenge in wanted:
                acme.answer_challenge(challenge, challenge.response(acme.net.key))
            # The library counts in local time without a zone.
            finished = acme.poll_and_finalize(order, datetime.now() + _PATIENCE)  # noqa: DTZ005
    return Issued(finished.fullchain_pem.encode("ascii"), private_key)


@contextmanager
def _failures_told(names: Sequence[str], directory_url: str) -> Iterator[None]:
    """What the library and the network raise, as AcmeFailed."""
    try:
        yield
    except errors.ValidationError as error:
        raise AcmeFailed(f"the authority could not check {', '.join(names)}: {_reasons(error)}") from error
    except (errors.Error, messages.Error, josepy.errors.Error) as error:
        raise AcmeFailed(f"the authority gave no certificate: {error}") from error
    except RequestException as error:
        raise AcmeFailed(f"the authority at {directory_url} cannot be reached: {_why(error)}") from error


def _why(error: RequestException) -> str:
    """What went wrong on the way, without the names of the libraries' classes around it."""
    if isinstance(error, Timeout):
        return "it does not answer in time"
    if isinstance(error, SSLError):
        found = re.search(r"certificate verify failed: ([^(\"']+)", str(error))
        return f"its certificate is not good: {found[1].strip()}" if found else "TLS with it failed"
    found = re.search(r"\[Errno -?\d+\] ([^)\"']+)", str(error))
    return found[1].strip().lower() if found else type(error).__name__


def _answer(challenge: messages.ChallengeBody, key: Any) -> tuple[str, bytes]:
    """Where the authority will ask, and what it is to be told (RFC 8555 §8.3)."""
    _, text = challenge.response_and_validation(key)
    return challenge.chall.path, text.encode("ascii")


def _http_01(authorization: messages.AuthorizationResource) -> messages.ChallengeBody:
    for each in authorization.body.challenges:
        if isinstance(each.chall, challenges.HTTP01):
            return each
    raise AcmeFailed("the authority does not check names by HTTP-01")


def _account(directory_url: str, email: str | None, folder: Path) -> client.ClientV2:
    """The account of this key, made where the authority does not know it yet."""
    net = _Network(_account_key(folder / "account-key.pem"), user_agent=f"mailstack/{__version__}")
    acme = client.ClientV2(client.ClientV2.get_directory(directory_url, net), net)
    new = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True)
    try:
        acme.new_account(new)
    except errors.ConflictError as error:  # it knows the key
        net.account = messages.RegistrationResource(uri=error.location, body=messages.Registration())
    return acme


def _account_key(file: Path) -> JWKRSA:
    if not file.exists():
        write_whole(file, _pem(rsa.generate_private_key(65537, _KEY_BITS)), mode=0o600)
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    return JWKRSA(key=key)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _reasons(error: errors.ValidationError) -> str:
    """What the authority found at each name."""
    found = [
        f"{authorization.body.identifier.value}: {challenge.error.detail}"
        for authorization in error.failed_authzrs
        for challenge in authorization.body.challenges
        if challenge.error is not None
    ]
    return "; ".join(found) or str(error)
