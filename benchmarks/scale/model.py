"""``python -m benchmarks.scale.model``: what a million connections need, from constants that were measured.

The cost of a message in a room of R members is ``publish + receive * E + deliver * R``: one process takes it and gives
it to Redis, E processes have members of the room and get it back, and each member gets a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Constants:
    """What ``python -m benchmarks.scale`` measured. CPU is in microseconds, the rest in bytes."""

    memory: float = 8551
    worker_memory: float = 38.1e6
    join: float = 648
    ping: float = 28.6
    publish: float = 78
    receive: float = 107
    deliver: float = 28.6
    redis_publish: float = 107
    redis_receive: float = 7
    redis_bytes_in: float = 6600
    redis_bytes_out: float = 85
    redis_bytes_out_to_each: float = 261
    redis_memory: float = 265
    frame: float = 155


@dataclass(frozen=True)
class Load:
    """What the users do.

    Attributes:
        members: of a room.
        messages: a second, of all users together.
        joins: connections a second that begin.
        ping_interval: seconds.
        history: messages that Redis keeps of a room.
    """

    name: str
    connections: int = 1_000_000
    members: int = 10
    messages: float = 0.0
    joins: float = 0.0
    ping_interval: float = 25.0
    history: int = 0


@dataclass(frozen=True)
class Machines:
    """The machines: a node has one worker for each core.

    Attributes:
        busy: the part of the time that a worker, or a Redis, works at most.
        connections: of a worker, at most. 10,000 were measured.
    """

    cores: int = 8
    busy: float = 0.6
    connections: int = 50_000


@dataclass(frozen=True)
class Plan:
    """What a load needs."""

    nodes: int
    shards: int
    cores_busy: float
    redis_cores_busy: float
    memory_per_node: float
    history_memory: float
    bytes_out: float
    redis_bytes_in: float
    redis_bytes_out: float
    seconds_after_failure: float


LOADS = (
    Load("idle", joins=1_000_000 / 3600),
    Load("a chat: each user writes every five minutes", members=50, messages=1e6 / 300, joins=300, history=100),
    Load("Centrifugo's test", messages=28e6 / 60 / 10, joins=200_000 / 60),
)


HEADINGS = (
    *("load", "nodes", "Redis shards", "cores busy", "of Redis", "memory of a node", "histories"),
    *("to clients", "into Redis", "out of Redis", "after a failure"),
)


def processes_reached(processes: int, members: int) -> float:
    """Return how many of the processes have a member of a room, on average."""
    return processes * (1 - (1 - 1 / processes) ** members)


def plan(load: Load, machines: Machines, constants: Constants) -> Plan:
    """Return the fewest nodes and shards for a load, so that the others can also bear the failure of one node."""
    nodes = 2
    while not _suffices(nodes - 1, load, machines, constants):
        nodes += 1
    processes = nodes * machines.cores
    reached = processes_reached(processes, load.members)
    redis = load.messages * (constants.redis_publish + constants.redis_receive * reached) / 1e6
    on_a_node = load.connections / nodes
    spare = (nodes - 1) * machines.cores - _cpu(nodes - 1, load, machines, constants)
    rooms = load.connections / load.members
    return Plan(
        nodes,
        max(1, ceil(redis / machines.busy)),
        _cpu(nodes, load, machines, constants),
        redis,
        on_a_node * constants.memory + machines.cores * constants.worker_memory,
        rooms * load.history * constants.redis_memory,
        load.messages * load.members * constants.frame,
        load.messages * constants.redis_bytes_in,
        load.messages * (constants.redis_bytes_out + constants.redis_bytes_out_to_each * reached),
        on_a_node * constants.join / 1e6 / spare,
    )


def _suffices(nodes: int, load: Load, machines: Machines, constants: Constants) -> bool:
    processes = nodes * machines.cores
    has_room = load.connections <= processes * machines.connections
    return has_room and _cpu(nodes, load, machines, constants) <= processes * machines.busy


def _cpu(nodes: int, load: Load, machines: Machines, constants: Constants) -> float:
    """The cores that all nodes together are busy with."""
    reached = processes_reached(nodes * machines.cores, load.members)
    message = constants.publish + constants.receive * reached + constants.deliver * load.members
    pings = load.connections / load.ping_interval * constants.ping
    return (load.messages * message + pings + load.joins * constants.join) / 1e6


def table(machines: Machines, constants: Constants) -> str:
    """Return the plans of all loads as a Markdown table."""
    rows = [f"| {' | '.join(HEADINGS)} |", "| --- |" + " ---: |" * (len(HEADINGS) - 1)]
    for load in LOADS:
        found = plan(load, machines, constants)
        rates = (found.bytes_out, found.redis_bytes_in, found.redis_bytes_out)
        cells = (
            f"{found.nodes}",
            f"{found.shards}",
            f"{found.cores_busy:.0f}",
            f"{found.redis_cores_busy:.1f}",
            f"{found.memory_per_node / 1e9:.2f} GB",
            f"{found.history_memory / 1e9:.1f} GB",
            *(f"{rate * 8 / 1e6:.0f} Mbit/s" for rate in rates),
            f"{found.seconds_after_failure:.1f} s",
        )
        rows.append(f"| {load.name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(Machines(), Constants()))
