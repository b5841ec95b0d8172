"""The formats of the metrics' page."""

from __future__ import annotations

import pytest

from twisted_beastws.server.observers.exposition import prefers_openmetrics

# The fields of Prometheus 2.42 and 3.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


class TestAccept:
    """RFC 9110 §12.5.1: the Accept field chooses the format."""

    @pytest.mark.parametrize(
        "accept",
        [
            PROMETHEUS_2,
            PROMETHEUS_3,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=1.0.0",
            'application/openmetrics-text; version="1.0.0"',
            "text/plain;q=0.5, application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0.001",
        ],
    )
    def test_openmetrics_is_sent_to_clients_that_prefer_it(self, accept: str) -> None:
        assert prefers_openmetrics(accept)

    @pytest.mark.parametrize(
        "accept",
        [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/*",
            "text/plain, application/openmetrics-text;q=0.9",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.000, text/plain;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=high",
            "application/openmetrics-text;q=1.5, text/plain;q=1.9",
            "application/openmetrics-text-not",
            ",;,;=;q",
        ],
    )
    def test_text_is_sent_to_all_other_clients(self, accept: str) -> None:
        assert not prefers_openmetrics(accept)
