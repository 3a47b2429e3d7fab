"""What the service does can be read by Prometheus, by a monitor, and by a person at a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, cast

import pytest

from mailstack.service import measures
from mailstack.service.metrics import Numbers, Observer
from mailstack.store.counts import SLOW_SECONDS
from tests.support.appliance import DOMAIN, Appliance, wait_until

PORT = 9154
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
MONITORING = Path(measures.__file__).parents[1] / "monitoring"


@pytest.fixture
def watched(appliance: Appliance) -> Appliance:
    """An appliance with a metrics port, not started."""
    text = appliance.config.read_text()
    appliance.config.write_text(f'{text}\n[metrics]\nlisten = ["{appliance.host}:{PORT}"]\n')
    return appliance


def fetched(appliance: Appliance, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{appliance.host}:{PORT}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def numbers(appliance: Appliance) -> dict[str, float]:
    """Each metric's sum over all processes."""
    found: dict[str, float] = {}
    said = fetched(appliance, "/metrics")[1]
    for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", said, re.MULTILINE):
        found[name] = found.get(name, 0) + float(value)
    return found


def some_mail(appliance: Appliance) -> None:
    assert appliance.send(b"Subject: hello\r\n\r\nworld\r\n", "anna", "ben")[0] == 250
    assert appliance.send(b"Subject: hello\r\n\r\nworld\r\n", "nobody")[0] == 550
    reader = appliance.pop3("anna")
    reader.retr(1)
    reader.dele(1)
    reader.quit()


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_one_port_tells_of_every_process(watched: Appliance, workers: tuple[str, ...]) -> None:
    watched.start(*workers)
    some_mail(watched)
    wait_until(lambda: numbers(watched)["mailstack_pop3_sessions_total"] == 1, what="the session is counted")
    found = numbers(watched)
    assert found["mailstack_up"] == 1
    assert found["mailstack_process_info"] == (2 if workers else 1)
    assert found["mailstack_messages_accepted_total"] == 1
    assert found["mailstack_deliveries_total"] == 2
    assert found["mailstack_recipients_refused_total"] == 1
    assert found["mailstack_pop3_logins_total"] == 1
    assert found["mailstack_messages_retrieved_total"] == found["mailstack_messages_deleted_total"] == 1
    assert found["mailstack_accounts"] == 2
    assert found["mailstack_stored_messages"] == 1
    assert found["mailstack_commit_seconds_count"] >= 2
    assert found["mailstack_certificate_end_timestamp_seconds"] > time.time()
    assert 'mailstack_recipients_refused_total{code="550"' in fetched(watched, "/metrics")[1]
    watched.stop()


def test_prometheus_finds_nothing_to_complain_of(watched: Appliance) -> None:
    watched.start()
    some_mail(watched)
    said = fetched(watched, "/metrics")[1]
    checked = subprocess.run(["promtool", "check", "metrics"], input=said, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    rules = ["promtool", "check", "rules", str(MONITORING / "alerts.yml")]
    assert subprocess.run(rules, capture_output=True).returncode == 0


def test_health_asks_the_store_and_says_why_not(watched: Appliance) -> None:
    watched.start()
    code, said = fetched(watched, "/health")
    assert (code, json.loads(said)) == (200, {"status": "ok", "reasons": [], "warnings": [], "processes": 1})
    assert fetched(watched, "/elsewhere")[0] == 404
    with watched.database() as database, database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    code, said = fetched(watched, "/health")
    assert code == 503
    assert "9999" in json.loads(said)["reasons"][0]
    assert numbers(watched)["mailstack_up"] == 0


def test_a_process_that_an_upgrade_has_not_reached_tells_what_it_knows() -> None:
    class Older:
        def is_well(self) -> bool:
            return True

        def processes(self, _question: str) -> list[dict[str, Any]]:
            steps = [0] * (len(SLOW_SECONDS) + 1)
            now = {"writer_jobs": 3}
            told = {"pid": 7, "version": "0.0", "sockets": ["smtp"], "counts": {}, "now": now}
            return [told | {"commits": {"steps": steps, "seconds": 0.0}}]

        def whole(self) -> dict[str, int]:
            return {}

    families = {family.name: family.samples for family in Numbers(cast(Observer, Older())).collect()}
    assert [sample.value for sample in families["mailstack_writer_queue_jobs"]] == [3]
    assert families["mailstack_leftover_bytes"] == []


def test_the_page_names_every_metric_and_no_other() -> None:
    rows = dict(re.findall(r"^\| `(mailstack_\w+)` \|.*?\| ([^|]+?) \|$", DOCS.read_text(), re.MULTILINE))
    assert rows == {each.name: each.meaning for each in measures.ALL}


def test_alerts_and_dashboard_speak_of_metrics_that_exist() -> None:
    names = {each.name for each in measures.ALL}
    for file in ("alerts.yml", "dashboard.json"):
        used = set(re.findall(r"\bmailstack_\w+", (MONITORING / file).read_text()))
        assert {name.removesuffix("_bucket") for name in used} <= names
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 8


# -- top -----------------------------------------------------------------------------------------


def top(appliance: Appliance, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mailstack", "--config", str(appliance.config), "top", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_top_is_one_look_for_scripts_and_pipes(appliance: Appliance) -> None:
    assert top(appliance).returncode == os.EX_UNAVAILABLE
    appliance.start("--workers", "2")
    some_mail(appliance)
    session = appliance.pop3("ben")
    told: Any = json.loads(top(appliance, "--json", "--every", "0.3").stdout)
    assert told["total"]["messages_accepted"] == 1
    assert told["now"]["pop3_sessions"] == 1
    assert len(told["processes"]) == 2
    assert [each["account"] for each in told["sessions"]] == [f"ben@{DOMAIN}"]
    plain = top(appliance, "--every", "0.3")
    assert "1 POP3 session" in plain.stdout
    assert f"ben@{DOMAIN}" in plain.stdout
    assert "\x1b" not in plain.stdout
    session.quit()


@pytest.mark.parametrize("end", ["q", "Ctrl-C", "SIGTERM"])
def test_top_lives_in_the_terminal_and_leaves_it_as_it_was(appliance: Appliance, end: str) -> None:
    appliance.start()
    session = appliance.pop3("ben")
    command = [sys.executable, "-m", "mailstack", "--config", str(appliance.config), "top", "--every", "0.2"]
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
    )
    os.close(theirs)
    said = _until(ours, f"ben@{DOMAIN}")
    if end == "q":
        os.write(ours, b"q")
    else:
        os.kill(process.pid, signal.SIGINT if end == "Ctrl-C" else signal.SIGTERM)
    said += _until(ours, None)
    assert process.wait(30) == 0
    assert said.rindex("\x1b[?1049l") > said.rindex("\x1b[?1049h"), "the screen of before is back"
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l"), "the cursor is back"
    assert "Traceback" not in said
    os.close(ours)
    session.quit()


def _until(terminal: int, wanted: str | None) -> str:
    """What is written, up to these words or to the end."""
    said, deadline = "", time.monotonic() + 40
    while (wanted is None or wanted not in said) and time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            octets = os.read(terminal, 65536)
        except OSError:  # nobody has the other end any more
            break
        if not octets:
            break
        said += octets.decode(errors="replace")
    assert wanted is None or wanted in said, said
    return said
