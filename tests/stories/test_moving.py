"""Who moves here keeps the password that the old server knew, and its hash alone was brought along."""

from __future__ import annotations

import poplib
import re
import subprocess
from pathlib import Path

import pytest
from passlib.hash import sha512_crypt

from mailstack.mail.address import Mailbox
from mailstack.store import routes
from tests.support.appliance import DOMAIN, Appliance

PAGE = Path(__file__).parents[2] / "docs" / "moving.md"


def test_old_hashes_log_in_and_are_renewed(appliance: Appliance, tmp_path: Path) -> None:
    lea, kim = (f"{name}@{DOMAIN}" for name in ("lea", "kim"))
    old = "{SHA512-CRYPT}" + sha512_crypt.using(rounds=5000).hash("geheim")
    (tmp_path / "users").write_text(
        f'# Dovecot\'s passwd-file\n{lea}:{old}:5000:5000::/var/vmail/lea::\n{kim}:{{PLAIN}}a "b", c\n'
    )
    found = re.search(r"^awk .*?people\.csv$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    subprocess.run(found[0], shell=True, cwd=tmp_path, check=True)
    appliance.start()
    said = appliance.command("account", "import", str(tmp_path / "people.csv"))
    assert said == b"2 accounts can receive and fetch mail now\n"

    for wrong in (old, old.removeprefix("{SHA512-CRYPT}")):
        refused = appliance.pop3s()
        refused.user(lea)
        with pytest.raises(poplib.error_proto, match="AUTH"):
            refused.pass_(wrong)
    for address, password in ((lea, "geheim"), (kim, 'a "b", c')):
        session = appliance.pop3s()
        session.user(address)
        assert session.pass_(password).startswith(b"+OK")
        session.quit()
    with appliance.database() as database, database.reading() as connection:
        kept = routes.credentials(connection, Mailbox("lea", DOMAIN))
    assert kept is not None
    assert kept.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert kept.scram_keys is not None
