"""A log line at the start if the service runs on the pure Python codec."""

from __future__ import annotations

import os

from twisted.logger import Logger

from twisted_beastws.wire.codec import ACCELERATED, PURE_VARIABLE

COST = "A message costs 1.2 to 9 times the CPU time that it costs with the compiled codec."
"""From the table of benchmarks: 1.2 times for a compressed message, 9 times for pipelined messages of 64 bytes."""

log = Logger()


def report_codec() -> None:
    """Log the codec in use and its cost, unless it is the compiled one."""
    if ACCELERATED:
        return
    if os.environ.get(PURE_VARIABLE, "0") not in ("", "0"):
        log.info(
            "The pure Python codec is in use, because {variable} is set. {cost}", variable=PURE_VARIABLE, cost=COST
        )
        return
    log.warn(
        "The pure Python codec is in use, because the compiled codec is not built for this Python. {cost} "
        "To build it, install a C compiler and Python's headers (Debian: apt-get install gcc libc6-dev python3-dev), "
        "and repeat the pip install command.",
        cost=COST,
    )
