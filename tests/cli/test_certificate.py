"""`mailstack certificate`: what no authority is asked for, why none answers, and who is killed meanwhile."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mailstack.acme import order
from mailstack.acme.order import Issued
from mailstack.cli import setup_words
from mailstack.mail.address import Mailbox
from mailstack.service.tls import ensure
from mailstack.settings import Settings
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


# -- with an authority that issues at once -----------------------------------------------------------


class Authority:
    """Counts what it has issued, as a real one does."""

    def __init__(self) -> None:
        self.issued = 0

    def issue(self, names: Sequence[str], **_: object) -> Issued:
        """A certificate, and the key that it is for."""
        self.issued += 1
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(_name(names[0]))
            .issuer_name(_name("an authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=90))
            .add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Issued(made.public_bytes(serialization.Encoding.PEM), pem)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@pytest.fixture
def authority(mailstack: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Authority:
    made = Authority()
    monkeypatch.setattr(order, "issue", made.issue)
    with mailstack.file.open("a") as file:
        file.write('\n[acme]\nlisten = ["127.0.0.1:0"]\n')
    return made


@pytest.mark.parametrize(
    ("key", "place", "why"),
    [
        ("certificate", "none/c.pem", "cannot be replaced by the user .*: No such file or directory"),
        ("private_key", "none/k.pem", "cannot be replaced by the user .*: No such file or directory"),
        ("private_key", "state", "cannot be replaced by the user .*: Is a directory"),
        ("private_key", "tls/certificate.pem", "a file of its own is needed"),
    ],
)
def test_what_could_not_be_put_in_place_is_not_asked_for(
    mailstack: CommandLine, authority: Authority, key: str, place: str, why: str
) -> None:
    text = mailstack.file.read_text()
    mailstack.file.write_text(re.sub(rf"^{key} = .*$", f'{key} = "{place}"', text, flags=re.MULTILINE))
    folder = mailstack.file.parent
    before = sorted(folder.rglob("*"))
    refused = mailstack("certificate", "obtain", "--force")
    assert (refused.code, authority.issued) == (78, 0)
    assert re.search(rf"tls\.{key}: .*{why}", refused.err)
    assert "no authority was asked" in refused.err
    assert set(folder.rglob("*")) - set(before) <= {folder / "state" / "tls"}


class Killed(BaseException):
    """What no handler of errors sees."""


def killed_before(step: int, mailstack: CommandLine, *arguments: str) -> None:
    """Run a command that is killed before so many files, from 0, have taken their places."""
    replace, left = Path.replace, iter(range(step))

    def one_of_them(draft: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise Killed
        return replace(draft, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", one_of_them)
        with pytest.raises(Killed):
            mailstack("certificate", *arguments)


@pytest.mark.parametrize("step", range(3))
def test_a_renewal_that_was_killed_can_be_begun_anew(
    mailstack: CommandLine, authority: Authority, step: int
) -> None:
    mailstack.good("certificate", "obtain")
    killed_before(step, mailstack, "renew", "--force")
    assert "the running service takes it" in mailstack.good("certificate", "renew", "--force").out
    killed_before(step, mailstack, "obtain")
    mailstack.good("certificate", "obtain")
    assert authority.issued == 5


@pytest.mark.parametrize("step", range(3))
def test_a_first_certificate_whose_order_was_killed_can_be_obtained_anew(
    mailstack: CommandLine, authority: Authority, step: int
) -> None:
    killed_before(step, mailstack, "obtain")
    mailstack.good("certificate", "obtain")
    assert "the running service takes it" in mailstack.good("certificate", "renew", "--force").out


def test_somebody_elses_certificate_is_theirs_until_ours_is_in_its_place(
    mailstack: CommandLine, authority: Authority
) -> None:
    mailstack.good("certificate", "obtain")
    file = mailstack.file.parent / "tls" / "certificate.pem"
    file.write_bytes(authority.issue(["mail.example.org"]).chain)
    killed_before(2, mailstack, "obtain", "--force")
    assert "--force takes its place" in mailstack("certificate", "obtain").err
    mailstack.good("certificate", "obtain", "--force")
    mailstack.good("certificate", "obtain")


def test_setup_calls_self_signed_what_is_so(tmp_path: Path) -> None:
    settings = Settings(hostname="mail.example.org", state_dir=tmp_path)

    def said() -> str:
        return "\n".join(setup_words.programs(settings, Mailbox("jo", "example.org")))

    ensure(*settings.certificate_files, settings.hostname)
    assert "The certificate is self-signed" in said()
    settings.certificate_files[0].write_bytes(Authority().issue([settings.hostname]).chain)
    assert "certificate" not in said()
