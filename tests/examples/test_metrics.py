"""The example metrics.py: a scrape as Prometheus does it, of a factory in a program."""

from __future__ import annotations

from http.client import HTTPConnection
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from ..support.patience import PATIENCE
from .processes import Example

parser = pytest.importorskip("prometheus_client.parser", reason="METRICS ARE NOT TESTED: pip install prometheus_client")


def scraped(port: int) -> dict[str, float]:
    """Return the values of a scrape by their names and labels."""
    http = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        http.request("GET", "/metrics")
        response = http.getresponse()
        assert response.status == 200
        families = parser.text_string_to_metric_families(response.read().decode())
    finally:
        http.close()
    samples = [sample for family in families for sample in family.samples]
    return {" ".join((sample.name, *map(str, sample.labels.values()))): sample.value for sample in samples}


def test_a_scrape_has_the_messages_and_the_refusals(tmp_path: Path) -> None:
    with Example("metrics", tmp_path, "--metrics", "tcp:0:interface=127.0.0.1") as example:
        admin = int(example.await_log(r"^metrics on .*\bport=(\d+)")[1])
        with example.connect() as client:
            client.send("hello")
            assert client.recv(PATIENCE) == "hello"
            values = scraped(admin)
        assert values["beastws_messages_total received text"] == values["beastws_messages_total sent text"] == 1
        assert values["beastws_message_bytes_total sent text"] == 5
        assert values["beastws_connections open"] == 1
        with pytest.raises(InvalidStatus), example.connect(origin="http://evil.example"):
            pass
        assert scraped(admin)["beastws_handshakes_total 403"] == 1
        response, _ = example.fetch("/metrics")
        assert response.status == 426
