"""What `mailstack demo` says: the welcome message, and how to reach the server."""

from __future__ import annotations

import shlex
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path

from mailstack.cli.demo_home import ADDRESS, DOMAIN, HOSTNAME
from mailstack.errors import BadSetting
from mailstack.settings import Settings
from mailstack.values import Listen, TcpAddress

_WELCOME = """\
Hello,

this message came into your maildrop the way all mail will: by SMTP, into the
store, and from there to you by POP3. When the server said that it took the
message, the message was on disk.

Things to try, with the server of `make run`:

  - send yourself a message, and fetch it with the curl lines it printed
  - stop the server and start it again: this message is still here
  - send to somebody@{domain}: the server says at once that nobody
    has that name
  - look behind the counter: mailstack --help

Your demo
"""

_GUIDE = """\
mailstack is up. Ctrl-C stops it; the mail stays in {directory}

# Your account
  address    {address}
  password   {password}

# Addresses, on this machine only
{listeners}

# Send a message
  printf '{message}' | curl -sS --crlf {smtp_url} --mail-from you@example.com --mail-rcpt {address} -T -

# Fetch: the list, then the first message
  curl -sS {pop3_url}/ -u {login}
  curl -sS {pop3_url}/1 -u {login}

# Thunderbird, on this machine: a new mail account, then "Configure manually"
  incoming   POP3, host {pop3.host}, port {pop3.port}, STARTTLS, normal password, user name {address}
  outgoing   host {smtp.host}, port {smtp.port}, no TLS, no authentication; it takes mail for {domain} only
  It will ask about the certificate, which the demo made itself: confirm the exception.

# Manage it, in another window
  {program} --config {config} account add you@{domain}
  {program} --config {config} maildrop list {address}

# What happens
"""


def welcome() -> EmailMessage:
    """The first message of the demo's account."""
    message = EmailMessage()
    message["From"] = f"mailstack <postmaster@{DOMAIN}>"
    message["To"] = str(ADDRESS)
    message["Subject"] = "Welcome to mailstack"
    message["Date"] = format_datetime(datetime.now().astimezone())
    message["Message-ID"] = make_msgid(domain=HOSTNAME)
    message.set_content(_WELCOME.format(domain=DOMAIN), cte="7bit")
    return message


def guide(settings: Settings, *, directory: Path, config: Path, password: str, program: str) -> str:
    """How to reach the demo; lines that begin with # are headings."""
    smtp, pop3 = first_tcp(settings.smtp.listen), first_tcp(settings.pop3.listen)
    message = rf"From: you@example.com\nTo: {ADDRESS}\nSubject: Hello\n\nIt works.\n"
    return _GUIDE.format(
        directory=directory,
        config=shlex.quote(str(config)),
        program=program,
        address=ADDRESS,
        domain=DOMAIN,
        password=password,
        login=shlex.quote(f"{ADDRESS}:{password}"),
        listeners="\n".join(_listeners(settings)),
        message=message,
        smtp=smtp,
        pop3=pop3,
        smtp_url=f"smtp://{smtp}",
        pop3_url=f"pop3://{pop3}",
    )


def first_tcp(addresses: tuple[Listen, ...]) -> TcpAddress:
    """The first address that a mail program can be told of; raises BadSetting if somebody took it away."""
    for each in addresses:
        if isinstance(each, TcpAddress):
            return each
    raise BadSetting("the demo needs an address with a port in [smtp] listen and in [pop3] listen")


def _listeners(settings: Settings) -> list[str]:
    rows = (
        ("SMTP", settings.smtp.listen, f"takes mail for {DOMAIN}; STARTTLS"),
        ("POP3", settings.pop3.listen, "hands it out; STLS, or plain from this machine"),
        ("POP3S", settings.pop3.tls_listen, "the same, TLS from the first octet"),
    )
    return [f"  {name:<9}  {address!s:<17}  {what}" for name, several, what in rows for address in several]
