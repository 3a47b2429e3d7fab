"""What a booted machine tells: log, a mail's story, numbers, and a renewal that is not due."""

from __future__ import annotations

import json

from tests.appliance.box import Box
from tests.appliance.clients import ADDRESS, send


def what_happens_can_be_seen(box: Box) -> None:
    """On a box that has been set up and has had no mail yet."""
    send(box, "hello")
    events = json.loads(box.good("mailstack", "trace", ADDRESS, "--json"))["events"]
    assert [each["event"] for each in events] == ["accepted"]
    assert events[0]["id"] in box.good("journalctl", "-u", "mailstack@smtp", "-p", "info")
    assert events[0]["id"] not in box.good("journalctl", "-u", "mailstack@smtp", "-p", "warning")

    box.good("systemctl", "enable", "--now", "mailstack-metrics.socket")
    fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9154{}').read().decode())"
    assert json.loads(box.good("python3", "-c", fetch.format("/health")))["status"] == "ok"
    told = box.good("python3", "-c", fetch.format("/metrics"))
    assert 'roles="smtp"' in told
    assert 'roles="metrics"' in told
    assert "mailstack_stored_messages 1.0" in told
    assert json.loads(box.good("mailstack", "top", "--json"))["total"]["messages_accepted"] == 1

    box.good("systemctl", "start", "mailstack-acme.service")
    assert "nothing is done" in box.journal("mailstack-acme.service")
    assert box.unit("mailstack-acme.socket", "ActiveState") == "inactive"
    box.good("systemctl", "enable", "--now", "mailstack-acme.timer")
