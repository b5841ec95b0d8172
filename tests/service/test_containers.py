"""The files of deploy/ for container engines, and the options in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from twisted_beastws.server.gates.admin_pages import HEALTH
from twisted_beastws.service import Options

pytest.importorskip("txredisapi", reason="CONTAINERS ARE NOT TESTED: pip install txredisapi")

DEPLOY = Path(__file__).parents[2] / "deploy"
CLOSE_HANDSHAKE = 5
"""Seconds, beyond --drain-time, until the last connection is gone."""


def documents(name: str) -> list[Any]:
    return list(import_module("yaml").safe_load_all((DEPLOY / name).read_text()))


def words(instruction: str) -> list[str]:
    """The words of an instruction of the Containerfile."""
    (found,) = re.findall(rf"^{instruction} (\[.*\])$", (DEPLOY / "Containerfile").read_text(), re.MULTILINE)
    return list(json.loads(found))


def parse(arguments: list[str]) -> Options:
    """The options of the image with these arguments in place of its own."""
    entry = words("ENTRYPOINT")
    assert entry[:4] == ["twistd", "-n", "--pidfile=", "beastws"]
    options = Options()
    options.parseOptions([*entry[4:], *arguments])
    return options


def ports_of(options: Options) -> tuple[int, int]:
    """The ports of the chat and of the admin, which a container listens on at all its addresses."""
    found = [re.fullmatch(r"tcp:(\d+)", text) for text in (options["listen"][0], options["admin"])]
    chat, admin = (int(match[1]) for match in found if match is not None)
    return chat, admin


def test_the_image_understands_its_own_options() -> None:
    options = parse(words("CMD"))
    assert options.access_log is not None
    assert "EXPOSE {} {}\n".format(*ports_of(options)) in (DEPLOY / "Containerfile").read_text()


class TestCompose:
    """The files for Docker Compose."""

    @pytest.fixture
    def compose(self) -> Any:
        (compose,) = documents("compose.yaml")
        return compose

    def test_the_service_understands_its_options(self, compose: Any) -> None:
        service = compose["services"]["beastws"]
        options = parse(service["command"])
        chat, _ = ports_of(options)
        assert service["ports"] == [f"127.0.0.1:{chat}:{chat}"]
        assert options["backplane"].startswith("redis://redis:") and "redis" in compose["services"]
        (seconds,) = re.findall(r"^(\d+)s$", service["stop_grace_period"])
        assert int(seconds) > options["drain-time"] + CLOSE_HANDSHAKE
        assert service["ulimits"]["nofile"] > options["max-connections"]

    def test_all_files_and_volumes_exist(self, compose: Any) -> None:
        build = compose["services"]["beastws"]["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
        for service in compose["services"].values():
            for volume in service.get("volumes", ()):
                source = volume.partition(":")[0]
                assert source in compose["volumes"] or (DEPLOY / source).is_dir()
            assert set(service.get("depends_on", ())) <= set(compose["services"])

    def test_prometheus_asks_for_the_service_by_a_name_that_it_answers(self, compose: Any) -> None:
        options = parse(compose["services"]["beastws"]["command"])
        (configuration,) = documents("prometheus/prometheus.yml")
        ((target,),) = (each["targets"] for each in configuration["scrape_configs"][0]["static_configs"])
        name, port = target.split(":")
        assert name in compose["services"] and name in options["admin-host"]
        assert int(port) == ports_of(options)[1]


class TestKubernetes:
    """The files for Kubernetes."""

    @pytest.fixture
    def pod(self) -> Any:
        deployment, _, _ = documents("kubernetes.yaml")
        return deployment["spec"]["template"]["spec"]

    @pytest.fixture
    def options(self, pod: Any, monkeypatch: pytest.MonkeyPatch) -> Options:
        (container,) = pod["containers"]
        for variable in container["env"]:
            monkeypatch.setenv(variable["name"], "redis://redis.example:6379/0")
        return parse(container["args"])

    def test_the_service_understands_its_options_and_its_environment(self, pod: Any, options: Options) -> None:
        chat, admin = ports_of(options)
        ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
        assert ports == {"chat": chat, "admin": admin}
        assert options["backplane"] == "redis://redis.example:6379/0"

    def test_the_probes_are_pages_of_the_admin(self, pod: Any) -> None:
        (container,) = pod["containers"]
        probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("liveness", "readiness")]
        assert probes == [{"path": path, "port": "admin"} for path in HEALTH]

    def test_the_grace_period_is_longer_than_the_whole_shutdown(self, pod: Any, options: Options) -> None:
        sleep, seconds = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert sleep == "sleep"
        needed = int(seconds) + options["drain-time"] + CLOSE_HANDSHAKE
        assert pod["terminationGracePeriodSeconds"] > needed

    def test_the_objects_have_the_labels_of_the_pods(self) -> None:
        deployment, service, budget = documents("kubernetes.yaml")
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
        assert budget["spec"]["selector"]["matchLabels"] == labels
        (port,) = service["spec"]["ports"]
        assert port["targetPort"] == "chat"
        kinds = [(each["apiVersion"], each["kind"]) for each in (deployment, service, budget)]
        assert kinds == [("apps/v1", "Deployment"), ("v1", "Service"), ("policy/v1", "PodDisruptionBudget")]


class TestDocumentation:
    """The documentation of ``deploy/``."""

    def files(self) -> Iterator[str]:
        for path in DEPLOY.rglob("*"):
            if path.is_file():
                yield str(path.relative_to(DEPLOY))

    def test_the_documentation_lists_each_file(self) -> None:
        page = (DEPLOY.parent / "docs" / "deployment.md").read_text()
        for name in self.files():
            assert f"`{name}`" in page or f"`{name.partition('/')[0]}/`" in page, name
