"""The servers that are compared, each in a temporary folder, on loopback, with synced commits.

Postfix and Dovecot are Debian's, with folders of their own and as fast as their settings make them:
processes that serve many connections instead of one, no pause between acceptance and delivery.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import ours
from bench.accounting import Account

DOMAIN = "example.test"
OWNER = 5000
"""Whose mail it is in the peer's folders: a number that needs no entry in /etc/passwd."""


ROLES = (("smtp", "housekeeping"), ("pop3", "--workers", "auto"))
"""Of our services, as the systemd units have them."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    name: str
    smtp: int
    pop3: int
    pop3s: int
    users: Path
    account: Account


def users_file(folder: Path, count: int) -> Path:
    """`login:password` lines."""
    file = folder / "users"
    file.write_text("".join(f"user{n:04}:{ours.SECRET}\n" for n in range(count)))
    return file


def logins(file: Path) -> list[tuple[str, str]]:
    """What is in it."""
    return [(login, secret) for login, _, secret in (x.partition(":") for x in file.read_text().split())]


def until_open(port: int) -> None:
    """Wait until somebody accepts there."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"nobody listens on port {port}")


# -- mailstack -------------------------------------------------------------------------------------


@contextmanager
def mailstack(folder: Path, users: int) -> Iterator[Server]:
    """Ours, with a process for each protocol, as the systemd units have it."""
    folder.mkdir()
    file = users_file(folder, users)
    settings = ours.made(folder / "mail", (login for login, _ in logins(file)), DOMAIN)
    smtp, pop3, pop3s = ours.free_ports(3)
    account = Account("mailstack", owes=lambda: ours.is_left_over(settings))
    listening = {
        "MAILSTACK_DEFAULT_DOMAIN": DOMAIN,
        "MAILSTACK_SMTP__LISTEN": f"127.0.0.1:{smtp}",
        "MAILSTACK_SMTP__MAX_CONNECTIONS": "3000",
        "MAILSTACK_POP3__MAX_CONNECTIONS": "12000",  # two workers may share them unevenly
        "MAILSTACK_POP3__LISTEN": f"127.0.0.1:{pop3}",
        "MAILSTACK_POP3__TLS_LISTEN": f"127.0.0.1:{pop3s}",
    }
    try:
        with ours.served(settings, *ROLES, listening=listening, account=account):
            yield Server("mailstack", smtp, pop3, pop3s, file, account)
    finally:
        account.close()


# -- Postfix and Dovecot -----------------------------------------------------------------------------


@contextmanager
def peer(folder: Path, users: int, storage: str, scheme: str = "PLAIN") -> Iterator[Server]:
    """Postfix, LMTP, Dovecot; `storage` is sdbox or maildir, `scheme` PLAIN or ARGON2ID."""
    folder.mkdir(mode=0o755)
    file = users_file(folder, users)
    smtp, pop3, pop3s = ours.free_ports(3)
    account = Account(f"peer-{storage}-{scheme}".lower())
    _certificate(folder)
    dovecot = _dovecot(folder, file, pop3=pop3, pop3s=pop3s, storage=storage, scheme=scheme)
    postfix = _postfix(folder, file, smtp=smtp)
    try:
        _started(account, ["dovecot", "-c", str(dovecot)], folder / "run" / "master.pid")
        _started(account, ["postfix", "-c", str(postfix), "start"], folder / "spool" / "pid" / "master.pid")
        for port in (smtp, pop3, pop3s):
            until_open(port)
        yield Server(f"postfix+dovecot-{storage}", smtp, pop3, pop3s, file, account)
    finally:
        subprocess.run(["postfix", "-c", str(postfix), "stop"], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["doveadm", "-c", str(dovecot), "stop"], check=False)
        account.close()


def _started(account: Account, command: list[str], pid_file: Path) -> None:
    limit = 'ulimit -n "$(ulimit -H -n)"; exec "$@"'
    subprocess.run(
        account.command(["bash", "-c", limit, "-", *command]), check=True, stderr=subprocess.DEVNULL
    )
    for _ in range(100):
        if pid_file.exists() and pid_file.read_text().strip():
            account.watch(int(pid_file.read_text()))
            return
        time.sleep(0.05)
    raise RuntimeError(f"{command[0]} did not start: see {pid_file.parent.parent}")


def _certificate(folder: Path) -> None:
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(["openssl", *words.split(), *files], check=True, stderr=subprocess.DEVNULL)


def _stored(scheme: str) -> Callable[[str], str]:
    if scheme == "ARGON2ID":
        return lambda _secret: "{ARGON2ID}" + ours.stored().password_hash
    return lambda secret: "{PLAIN}" + secret


def _dovecot(folder: Path, users: Path, *, pop3: int, pop3s: int, storage: str, scheme: str) -> Path:
    stored = _stored(scheme)
    for name in ("run", "mail"):
        (folder / name).mkdir()
    os.chown(folder / "mail", OWNER, OWNER)
    accounts = folder / "passwd"
    accounts.write_text(
        "".join(
            f"{login}:{stored(secret)}:{OWNER}:{OWNER}::{folder}/mail/{login}\n"
            for login, secret in logins(users)
        )
    )
    settings = folder / "dovecot.conf"
    # A cache of logins only where passwords are hashed: ours has one, so the peer's is switched on.
    settings.write_text(f"""\
base_dir = {folder}/run
state_dir = {folder}/run
instance_name = bench-{pop3}
log_path = {folder}/dovecot.log
protocols = pop3 lmtp
listen = 127.0.0.1
hostname = mx.{DOMAIN}
postmaster_address = postmaster@{DOMAIN}
ssl = yes
ssl_cert = <{folder}/certificate.pem
ssl_key = <{folder}/key.pem
disable_plaintext_auth = no
mail_location = {storage}:~/mail
mail_max_userip_connections = 0
auth_cache_size = {"0" if scheme == "PLAIN" else "10M"}
default_client_limit = 20000
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%n {accounts}
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {accounts}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
    ssl = yes
  }}
  process_limit = 3000
  process_min_avail = 2
  service_count = 0
}}
service pop3 {{
  process_limit = 3000
  service_count = 1000
}}
service lmtp {{
  unix_listener lmtp {{
    mode = 0666
  }}
  process_limit = 200
  service_count = 1000
}}
""")
    return settings


_SERVICES = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def _postfix(folder: Path, users: Path, *, smtp: int) -> Path:
    settings = folder / "postfix"
    for name in ("postfix", "spool", "data", "logs"):
        (folder / name).mkdir()
    shutil.chown(folder / "data", "postfix")
    (folder / "logs").chmod(0o777)
    maps = settings / "mailboxes"
    maps.write_text("".join(f"{login}@{DOMAIN} x\n" for login, _ in logins(users)))
    (settings / "main.cf").write_text(f"""\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
meta_directory = /etc/postfix
shlib_directory = /usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.{DOMAIN}
mydomain = {DOMAIN}
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
local_transport = error:nothing is local
default_transport = error:nothing is relayed
virtual_mailbox_domains = {DOMAIN}
virtual_mailbox_maps = hash:{maps}
virtual_transport = lmtp:unix:{folder}/run/lmtp
smtpd_relay_restrictions = reject_unauth_destination
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
message_size_limit = 52428800
disable_dns_lookups = yes
in_flow_delay = 0
biff = no
maillog_file = {folder}/logs/postfix.log
maillog_file_prefixes = {folder}/logs
""")
    (settings / "master.cf").write_text(f"127.0.0.1:{smtp} inet n - n - 1500 smtpd\n{_SERVICES}")
    for name in ("dynamicmaps.cf", "postfix-files"):
        if Path("/etc/postfix", name).exists():
            shutil.copy(Path("/etc/postfix", name), settings)
    for name in ("dynamicmaps.cf.d", "postfix-files.d"):
        (settings / name).mkdir()
    subprocess.run(["postmap", "-c", str(settings), f"hash:{maps}"], check=True)
    return settings
