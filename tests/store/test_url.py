"""What is secret in a database's URL is shown to nobody."""

from __future__ import annotations

import pytest

from mailstack.errors import BadSetting
from mailstack.store import url


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://u:s3cret@h/db", "postgresql://u:...@h/db"),
        ("postgresql://u:s3/cret@h/db", "postgresql://u:...@h/db"),
        ("postgresql://u:s3?cret@h/db", "postgresql://u:...@h/db"),
        ("postgresql://u:s3@cret@h/db", "postgresql://u:...@h/db"),
        ("postgresql://:s3cret@/db", "postgresql://:...@/db"),
        ("postgresql://u@h/db?password=s3cret", "postgresql://u@h/db?password=..."),
        ("postgresql://u@h/db?password=s3cret&password=cret", "postgresql://u@h/db?password=..."),
        ("postgresql://h/db?SSLpassword=s3cret", "postgresql://h/db?SSLpassword=..."),
        ("postgresql://u:s3:cret@h:no/db", "postgresql://..."),
        ("u:s3cret@h", "..."),
        ("postgresql:///db?host=/run/postgresql", "postgresql:///db?host=/run/postgresql"),
        ("sqlite:////var/lib/my mail/mail.db", "sqlite:////var/lib/my mail/mail.db"),
    ],
)
def test_a_password_is_not_shown_wherever_it_stands(given: str, shown: str) -> None:
    assert url.shown(given) == shown
    assert "cret" not in url.shown(given)


@pytest.mark.parametrize("given", ["u:s3cret@h", "postgresql://u:s3cret@h:no/db"])
def test_a_url_that_cannot_be_read_is_told_without_its_password(given: str) -> None:
    with pytest.raises(BadSetting, match="database_url is not a URL") as refused:
        url.parsed(given)
    assert "s3cret" not in str(refused.value)


def test_a_password_among_the_parameters_is_the_password() -> None:
    # pg_dump gets the rest of the URL as an argument, which every user of the host can see
    found = url.parsed("postgresql://u@h/db?password=s3cret&connect_timeout=3")
    assert (found.password, dict(found.query)) == ("s3cret", {"connect_timeout": "3"})
