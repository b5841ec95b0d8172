"""Measure the cost of one workload on one server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from socket import create_server, socket
from time import perf_counter, process_time, sleep

from benchmarks.certificate import certificate
from benchmarks.load import HOST, Echo, FanOut, FixedServer, Handshakes, Idle, Load
from benchmarks.peers import Server
from benchmarks.process import ServerProcess
from benchmarks.workloads import Workload

LOADS: dict[str, type[Load]] = {"echo": Echo, "handshakes": Handshakes, "fanout": FanOut}

FIRST = 100
"""Idle connections opened before memory is measured, so that code loaded for the first of them does not count."""

SETTLING = 0.5
"""Seconds for a server to finish with newly opened connections."""


class MeasureError(Exception):
    """A server failed, or completed no unit of work."""


@dataclass(frozen=True)
class Figure:
    """The figures of one run.

    cost: the server's CPU time for a unit, in microseconds, or its memory for a connection, in KiB.
    rate: units a second. busy, load_busy: the parts of their cores that the server and the load generator used.
    p50, p99: percentiles of the round trips in microseconds, for workloads with one message in flight on each
    connection.
    """

    cost: float
    rate: float | None = None
    busy: float | None = None
    load_busy: float | None = None
    p50: float | None = None
    p99: float | None = None


@dataclass(frozen=True)
class Pace:
    """The seconds of warm-up and of measurement in each run, and the number of rounds."""

    warm_up: float
    seconds: float
    rounds: int


def variables_of(server: Server, workload: Workload) -> dict[str, str]:
    """Return the environment variables of a server under a workload."""
    secure = {"BENCHMARK_CERTIFICATE": str(certificate())} if workload.secure else {}
    return workload.variables | server.variables | secure


def measure(python: Path, server: Server, workload: Workload, core: int, pace: Pace) -> Figure:
    """Run the server on ``core`` under the workload.

    Raises:
        UnavailableError: The server does not support the workload.
        MeasureError: The server failed.
    """
    variables = variables_of(server, workload)
    try:
        if workload.kind != "client":
            return _measure(python, replace(server, variables=variables), workload, core, pace, None)
        with create_server((HOST, 0)) as listening:
            variables["BENCHMARK_PORT"] = str(listening.getsockname()[1])
            return _measure(python, replace(server, variables=variables), workload, core, pace, listening)
    except (OSError, RuntimeError) as error:
        raise MeasureError(f"{server.name}, {workload.name}: {error}") from error


def _measure(
    python: Path, server: Server, workload: Workload, core: int, pace: Pace, listening: socket | None
) -> Figure:
    with ServerProcess(python, server, workload.mode, core) as process:
        try:
            if workload.kind == "idle":
                return _measure_memory(process, workload)
            if listening is not None:
                return _measure_cpu(process, FixedServer(listening, workload), workload, pace)
            return _measure_cpu(process, LOADS[workload.kind](process.port, workload), workload, pace)
        except Exception as error:
            raise RuntimeError(f"{error!r}; {process.errors()}") from error


def _measure_cpu(process: ServerProcess, load: Load, workload: Workload, pace: Pace) -> Figure:
    try:
        load.drive(pace.warm_up)
        cpu, load_cpu, begun = process.cpu(), process_time(), perf_counter()
        done = load.drive(pace.seconds)
        cpu, load_cpu, elapsed = process.cpu() - cpu, process_time() - load_cpu, perf_counter() - begun
    finally:
        load.close()
    if not done:
        raise RuntimeError("nothing was done in the time measured")
    p50 = p99 = None
    if workload.kind == "echo" and workload.in_flight == 1:
        round_trips = sorted(load.round_trips)
        p50, p99 = (1e6 * round_trips[len(round_trips) * part // 100] for part in (50, 99))
    return Figure(1e6 * cpu / done, done / elapsed, cpu / elapsed, load_cpu / elapsed, p50, p99)


def _measure_memory(process: ServerProcess, workload: Workload) -> Figure:
    load = Idle(process.port, workload)
    try:
        load.open(FIRST)
        sleep(SETTLING)
        before = process.memory()
        load.open(workload.connections)
        sleep(SETTLING)
        return Figure((process.memory() - before) / workload.connections / 1024)
    finally:
        load.close()
