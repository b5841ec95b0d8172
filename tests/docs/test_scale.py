"""The page about scale and its model agree."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from benchmarks.scale.model import LOADS, Constants, Load, Machines, plan, processes_reached, table

from .programs import DOCS

PAGE = (DOCS / "topics" / "scale.md").read_text(encoding="utf-8")


def test_the_page_has_the_table_of_the_model() -> None:
    assert table(Machines(), Constants()) in PAGE


def test_the_constants_are_those_that_the_page_shows() -> None:
    constants = Constants()
    alone, hundred, one = (float(number) for number in re.findall(r"(\d+) µs \| (\d+) µs \| (\d+) µs", PAGE)[0])
    deliver = (hundred - alone) / 90
    assert constants.deliver == pytest.approx(deliver, rel=0.01)
    assert constants.receive == pytest.approx(alone - one, rel=0.01)
    assert constants.publish == pytest.approx(one - constants.receive - 10 * deliver, rel=0.02)
    for shown in (f"{constants.memory} bytes", f"{constants.join} µs", f"{constants.ping} µs"):
        assert f"| {shown} |" in PAGE


@pytest.mark.parametrize(("processes", "members", "reached"), [(1, 10, 1), (10, 1, 1), (2, 2, 1.5), (10, 10_000, 10)])
def test_a_message_reaches_the_processes_that_have_members(processes: int, members: int, reached: float) -> None:
    assert processes_reached(processes, members) == pytest.approx(reached)


def test_the_nodes_suffice_when_one_has_failed() -> None:
    machines, constants = Machines(), Constants()
    for load in LOADS:
        found = plan(load, machines, constants)
        assert (found.nodes - 1) * machines.cores * machines.connections >= load.connections
        assert found.seconds_after_failure > 0
    twice = plan(replace(LOADS[-1], messages=2 * LOADS[-1].messages), machines, constants)
    assert twice.nodes > plan(LOADS[-1], machines, constants).nodes


def test_a_small_load_has_two_nodes_and_one_redis() -> None:
    found = plan(Load("small", connections=1000), Machines(), Constants())
    assert (found.nodes, found.shards) == (2, 1)
