"""The formats of the metrics' page: Prometheus' text, and OpenMetrics."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

OPENMETRICS = "application/openmetrics-text"
VERSIONS = ("1.0.0", "0.0.1")
"""The versions of OpenMetrics that a client may ask for: the page is the same in both."""

_OPENMETRICS, _TEXT = "prometheus_client.openmetrics.exposition", "prometheus_client"
_QUALITY = re.compile(r"[01](?:\.[0-9]{0,3})?")


def encode(registry: Any, accept: str = "") -> tuple[str, bytes]:
    """Return the type and the bytes of the page. Raises ImportError without the extra ``metrics``.

    Args:
        registry: of ``prometheus_client``.
        accept: the client's Accept field.
    """
    exposition: Any = import_module(_OPENMETRICS if prefers_openmetrics(accept) else _TEXT)
    return exposition.CONTENT_TYPE_LATEST, exposition.generate_latest(registry)


def prefers_openmetrics(accept: str) -> bool:
    """Return whether an Accept field (RFC 9110 §12.5.1) names OpenMetrics and likes plain text no better."""
    qualities = {OPENMETRICS: 0.0, "text/plain": 0.0}
    for item in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in item.split(";"))
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        quality = values.get("q", "1")
        if kind not in qualities or not _QUALITY.fullmatch(quality):
            continue
        if kind == OPENMETRICS and values.get("version", VERSIONS[0]).strip('"') not in VERSIONS:
            continue
        qualities[kind] = max(qualities[kind], float(quality))
    return 0 < qualities[OPENMETRICS] >= qualities["text/plain"]
