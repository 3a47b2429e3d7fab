"""`/metrics` for Prometheus and `/health` for whoever watches, on sockets named `metrics`.

Whichever process is asked asks all processes of this host, by their control sockets: one address
tells everything, however many processes and workers there are. It runs on threads of its own, and is
imported only where such a socket is.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from mailstack import certificates
from mailstack.errors import MailstackError
from mailstack.service import control, http, measures
from mailstack.settings import Settings
from mailstack.store import facts
from mailstack.store.clock import SECOND
from mailstack.store.counts import SLOW_SECONDS
from mailstack.store.store import Store
from mailstack.store.totals import totals

R = TypeVar("R")

_PATIENCE_SECONDS: Final = 5.0
_FACTS: Final = {"last_backup": facts.LAST_BACKUP, "last_housekeeping": facts.LAST_HOUSEKEEPING}


class Observer:
    """What one request needs to know; its methods are called on the server's threads, never on the loop."""

    def __init__(self, settings: Settings, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._store = store
        self._loop = loop

    def processes(self, command: str) -> list[Mapping[str, Any]]:
        """What each process of this host answers."""
        return control.ask(
            self._settings.control_dir, {"command": command}, patience_seconds=_PATIENCE_SECONDS
        )

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether all is well, and what is not."""
        told = self.processes("health")
        reasons = _reasons(told)
        trouble = self._certificate_trouble()
        warnings = [trouble] if trouble else []
        status = "failing" if reasons else "ok"
        return not reasons, {
            "status": status,
            "reasons": reasons,
            "warnings": warnings,
            "processes": len(told),
        }

    def is_well(self) -> bool:
        """Whether every process reads through the store."""
        return not _reasons(self.processes("health"))

    def _certificate_trouble(self) -> str | None:
        try:
            found = certificates.standing(self._settings.certificate_files[0])
        except MailstackError as error:
            return str(error)
        return certificates.trouble(found, self._settings.hostname)

    def whole(self) -> dict[str, float]:
        """The numbers of the server as a whole, as far as they can be had."""
        found: dict[str, float] = {
            "free_octets": shutil.disk_usage(self._settings.state_dir).free,
            "reserve_octets": self._settings.store.reserve_octets,
        }
        with suppress(MailstackError, TimeoutError):  # mailstack_up tells
            found |= self._run(self._store.read(totals))
            for name, fact in _FACTS.items():
                if (at := self._run(self._store.read(facts.get, fact))) is not None:
                    found[name] = at / SECOND
        with suppress(MailstackError):
            standing = certificates.standing(self._settings.certificate_files[0])
            found["certificate_end"] = standing.not_after.timestamp()
        return found

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        future: Future[R] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(_PATIENCE_SECONDS)
        except TimeoutError:
            future.cancel()
            raise


def _reasons(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why not all is well, from what the processes have answered."""
    reasons = [f"process {each.get('pid', '?')}: {each['why']}" for each in told if each.get("why")]
    reasons += [f"a process says: {each['error']}" for each in told if "error" in each]
    return reasons if told else ["no process answers"]


class Numbers(Collector):
    """All metrics of this host, looked up when they are asked for."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def collect(self) -> Iterator[Metric]:
        """One family after the other, in the order of the documentation."""
        well = float(self._observer.is_well())
        yield GaugeMetricFamily(measures.UP.name, measures.UP.meaning, value=well)
        told = [each for each in self._observer.processes("numbers") if "counts" in each]
        yield _info(told)
        for measure in measures.COUNTS:
            yield _counted(measure, told)
        for measure in measures.NOW:
            yield _now(measure, told)
        yield _commits(told)
        whole = self._observer.whole()
        for measure in measures.STORE:
            if measure.source in whole:
                yield GaugeMetricFamily(measure.name, measure.meaning, value=whole[measure.source])


def _info(told: Sequence[Mapping[str, Any]]) -> Metric:
    family = GaugeMetricFamily(measures.INFO.name, measures.INFO.meaning, labels=("pid", "version", "roles"))
    for each in told:
        family.add_metric((str(each["pid"]), each["version"], "+".join(each["sockets"]) or "housekeeping"), 1)
    return family


def _counted(measure: measures.Measure, told: Sequence[Mapping[str, Any]]) -> Metric:
    labels = ("pid", measure.label) if measure.label else ("pid",)
    family = CounterMetricFamily(measure.name, measure.meaning, labels=labels)
    for each in told:
        pid, counts = str(each["pid"]), each["counts"]
        if not measure.label:
            family.add_metric((pid,), counts.get(measure.source, 0))
            continue
        for name, number in counts.items():
            source, _, value = name.partition(":")
            if source == measure.source:
                family.add_metric((pid, value), number)
    return family


def _now(measure: measures.Measure, told: Sequence[Mapping[str, Any]]) -> Metric:
    kind = CounterMetricFamily if measure.name.endswith("_total") else GaugeMetricFamily
    family = kind(measure.name, measure.meaning, labels=("pid",))
    for each in told:
        if measure.source in each["now"]:  # a process that was started before an upgrade has not all
            family.add_metric((str(each["pid"]),), each["now"][measure.source])
    return family


def _commits(told: Sequence[Mapping[str, Any]]) -> Metric:
    family = HistogramMetricFamily(measures.COMMIT.name, measures.COMMIT.meaning, labels=("pid",))
    for each in told:
        buckets, total = [], 0
        for step, number in zip((*map(str, SLOW_SECONDS), "+Inf"), each["commits"]["steps"], strict=True):
            total += number
            buckets.append((step, total))
        family.add_metric((str(each["pid"]),), buckets, each["commits"]["seconds"])
    return family


def _handler(observer: Observer) -> type[http.Handler]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Numbers(observer))

    class Handler(http.Handler):
        def do_GET(self) -> None:  # noqa: N802 -- the name is http.server's
            answer = {"/metrics": self._metrics, "/health": self._health}.get(self.path.partition("?")[0])
            if answer is None:
                self.say(404, "text/plain; charset=utf-8", b"there are /metrics and /health\n")
            else:
                answer()

        do_HEAD = do_GET  # noqa: N815 -- both names are those of http.server

        def _metrics(self) -> None:
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self.say(200, content_type, encode(registry))

        def _health(self) -> None:
            well, told = observer.health()
            self.say(200 if well else 503, "application/json", json.dumps(told).encode() + b"\n")

    return Handler


def serve(sockets: Sequence[socket.socket], settings: Settings, store: Store) -> Callable[[], None]:
    """Answer on bound sockets from now on; what is returned ends that."""
    handler = _handler(Observer(settings, store, asyncio.get_running_loop()))
    servers = [http.Server(bound, handler) for bound in sockets]
    for server in servers:
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()

    def close() -> None:
        for server in servers:
            server.socket.close()

    return close
