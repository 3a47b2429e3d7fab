"""Settings that only root may read, as systemd hands them over."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailstack.errors import BadSetting
from mailstack.settings import load, read

URL = "postgresql://mailstack:s3cret@db.example.org/mail"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file that names another database and a certificate without its key."""
    made = tmp_path / "mailstack.toml"
    made.write_text('database_url = "sqlite:////mail.db"\n[tls]\ncertificate = "/etc/ssl/mail.pem"\n')
    return made


def passed(tmp_path: Path, **files: str) -> dict[str, str]:
    """What a service of systemd's finds in its environment."""
    folder = tmp_path / "passed"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def test_a_credential_of_the_service_is_a_setting(file: Path, tmp_path: Path) -> None:
    environ = passed(tmp_path, **{"mailstack_database_url": f"{URL}\n", "mailstack_tls.private_key": "PEM"})
    found = read(file, environ)
    assert found.settings.database_url == URL
    assert found.origins["database_url"] == str(tmp_path / "passed" / "mailstack_database_url")
    assert found.settings.tls.private_key == tmp_path / "passed" / "mailstack_tls.private_key"
    assert found.settings.tls.certificate == Path("/etc/ssl/mail.pem")


def test_a_unit_may_have_credentials_that_are_not_ours(file: Path, tmp_path: Path) -> None:
    environ = passed(tmp_path, **{"other": "x", "mailstack_tls.private_key": "PEM"})
    assert load(file, environ).database_url == "sqlite:////mail.db"


def test_roots_command_line_finds_them_beside_the_settings(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "database_url").write_text(URL)
    (folder / "tls.private_key").write_text("PEM")
    (folder / ".swp").write_text("an editor's")
    found = load(file, {})
    assert found.database_url == URL
    assert found.tls.private_key == folder / "tls.private_key"


def test_the_environment_has_the_last_word(file: Path, tmp_path: Path) -> None:
    environ = passed(tmp_path, **{"mailstack_database_url": URL, "mailstack_tls.private_key": "PEM"})
    found = load(file, environ | {"MAILSTACK_DATABASE_URL": "sqlite:////other.db"})
    assert found.database_url == "sqlite:////other.db"


def test_a_credential_that_is_no_setting_is_a_mistake(file: Path, tmp_path: Path) -> None:
    environ = passed(tmp_path, **{"mailstack_database_ulr": URL, "mailstack_tls.private_key": "PEM"})
    with pytest.raises(BadSetting, match=r"mailstack_database_ulr: .*did you mean database_url\?"):
        load(file, environ)


def test_a_mistake_in_a_credential_names_its_file_and_not_its_value(file: Path, tmp_path: Path) -> None:
    environ = passed(
        tmp_path, **{"mailstack_database_url": "mysql://u:s3cret@h/d", "mailstack_tls.private_key": "P"}
    )
    with pytest.raises(BadSetting, match="mailstack_database_url: database_url: it has to begin") as refused:
        load(file, environ)
    assert "s3cret" not in str(refused.value)
