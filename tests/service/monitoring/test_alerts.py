"""The alert rules and the dashboard in deploy/, and the metrics that they name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from twisted_beastws import Hub, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.hub.redis import RedisBackplane
from twisted_beastws.server.descriptors import DescriptorWatch
from twisted_beastws.server.observers.metering import Meter
from twisted_beastws.server.observers.metrics import Metrics
from twisted_beastws.server.observers.reactor_lag import ReactorLag
from twisted_beastws.service.summing import AggregatedMetrics, families

from ...support.patience import PATIENCE

pytest.importorskip("prometheus_client", reason="METRICS ARE NOT TESTED: pip install prometheus_client")

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
SELECTOR = re.compile(r"\b((?:beastws|process)_\w+)(\{[^}]*\})?")
# Prometheus adds the first two to each metric.
ADDED = {"job", "instance"}


def page() -> list[Any]:
    """The metrics of a supervisor of one worker, with a sample of each kind."""
    clock = Clock()
    factory = WebSocketServerFactory(WebSocketProtocol, clock=clock)
    meter = Meter()
    meter.handshakes["101"] = meter.responses["200"] = meter.closes["1000", "peer"] = 1
    factory.refusals["max_connections"] = 1
    hub = Hub(RedisBackplane("redis://localhost"))
    watch, lag = DescriptorWatch(clock.callLater), ReactorLag(None)
    text = Metrics(factory, meter, hub, watch, lag).render()[1].decode()
    worker = SimpleNamespace(page=text, booted=True, ask=lambda question: succeed(text))
    workers: Any = SimpleNamespace(living=[worker], replaced=0)
    rendered: list[bytes] = []
    Deferred.fromCoroutine(AggregatedMetrics(clock, workers).render()).addCallback(
        lambda both: rendered.append(both[1])
    )
    return families(rendered[0].decode())


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """The labels of each metric, by the names that queries use."""
    found: dict[str, set[str]] = {}
    for family in page():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture(scope="module")
def states() -> set[str]:
    (family,) = (family for family in page() if family.name == "beastws_backplane_state")
    return {sample.labels["state"] for sample in family.samples}


def promtool(*arguments: str) -> None:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("ALERT RULES ARE NOT TESTED: apt-get install prometheus")
    done = subprocess.run(
        [found, *arguments], cwd=RULES.parent, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    (group,) = import_module("yaml").safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def queries() -> Iterator[tuple[str, str]]:
    """Each query with its place."""
    for rule in rules():
        yield f"rule {rule.get('alert') or rule['record']}", rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]


class TestRules:
    """The alert rules of ``deploy/``."""

    def test_promtool_finds_no_fault(self) -> None:
        promtool("check", "rules", "alerts.yml")

    def test_the_rules_own_tests_pass(self) -> None:
        promtool("test", "rules", "alerts-test.yml")

    def test_promtool_accepts_the_configuration(self) -> None:
        promtool("check", "config", "prometheus.yml")

    def test_each_alert_has_a_test(self) -> None:
        tests = (RULES.parent / "alerts-test.yml").read_text()
        assert [rule["alert"] for rule in rules() if "alert" in rule and rule["alert"] not in tests] == []

    def test_each_alert_has_a_severity_and_says_what_to_do(self) -> None:
        for rule in rules():
            if "alert" in rule:
                assert rule["labels"]["severity"] in ("warning", "critical")
                assert set(rule["annotations"]) == {"summary", "description"}


class TestQueries:
    """The metrics that rules and dashboard name exist."""

    def test_each_metric_and_each_label_exists(self, labels: dict[str, set[str]]) -> None:
        recorded = {rule["record"] for rule in rules() if "record" in rule}
        for place, query in queries():
            for record in recorded:
                query = query.replace(record, "")
            found = SELECTOR.findall(query)
            for name, selector in found:
                assert name in labels, f"{place}: there is no metric {name}"
                used = set(re.findall(r"(\w+)\s*[=!]~?", selector))
                assert used <= labels[name] | ADDED, f"{place}: {name} has no such labels: {used}"
            of_all = set.union({"le"}, ADDED, *(labels[name] for name, _ in found))
            for grouped in re.findall(r"by \(([^)]*)\)", query):
                assert {label.strip() for label in grouped.split(",")} <= of_all, place

    def test_each_state_of_the_backplane_exists(self, states: set[str]) -> None:
        named = {state for _, query in queries() for state in re.findall(r'state="(\w+)"', query)}
        assert named == {"connected"} <= states

    def test_the_dashboard_shows_each_metric_of_the_service(self, labels: dict[str, set[str]]) -> None:
        shown = {name for place, query in queries() if place.startswith("panel") for name, _ in SELECTOR.findall(query)}
        series = {re.sub(r"_(bucket|sum|count)$", "_bucket", name) for name in labels if name.startswith("beastws_")}
        assert series - shown == set()


class TestDashboard:
    """The dashboard of ``deploy/``."""

    def test_panels_have_their_own_numbers_and_places(self) -> None:
        panels = json.loads(DASHBOARD.read_text())["panels"]
        numbers = [panel["id"] for panel in panels]
        assert len(set(numbers)) == len(numbers)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken and place["x"] + place["w"] <= 24
            taken |= cells

    def test_each_query_has_the_variables_of_the_dashboard(self) -> None:
        dashboard = json.loads(DASHBOARD.read_text())
        names = {variable["name"] for variable in dashboard["templating"]["list"]}
        assert names == {"datasource", "job", "instance"}
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
                assert used == {"job", "instance"}, panel["title"]
                assert target["datasource"]["uid"] == "${datasource}"
