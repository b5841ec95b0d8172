"""Full garbage collections stay short, and the garbage of an application is found at last."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from twisted.internet.task import Clock

from twisted_beastws.server.garbage import EXCESS, FULL, LONG, ShortCollections

from ..support.patience import PATIENCE


class Collector:
    """The module `gc`, with collections that take the given time."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[str, dict[str, int]], None]] = []
        self.frozen = False
        self.thaws = 0
        self.clock = Clock()

    def freeze(self) -> None:
        self.frozen = True

    def unfreeze(self) -> None:
        self.frozen = False
        self.thaws += 1

    def collect(self, seconds: float, generation: int = FULL) -> None:
        self.report("start", generation)
        self.clock.advance(seconds)
        self.report("stop", generation)

    def report(self, phase: str, generation: int = FULL) -> None:
        for callback in self.callbacks:
            callback(phase, {"generation": generation, "collected": 0, "uncollectable": 0})


class Program:
    """A program that starts with 1000 blocks of memory for 9 connections, and its collections."""

    def __init__(self) -> None:
        self.connections = 9
        self.blocks = 1000
        self.collector = Collector()
        self.service = ShortCollections(
            lambda: self.connections, self.collector.clock.seconds, lambda: self.blocks, self.collector
        )
        self.service.startService()


@pytest.fixture
def program() -> Program:
    return Program()


class TestFreezing:
    """Long full collections freeze the objects that survive them."""

    @pytest.mark.parametrize(("seconds", "frozen"), [(0.0, False), (LONG, False), (LONG + 0.001, True), (5.0, True)])
    def test_the_survivors_of_a_long_full_collection_are_frozen(
        self, program: Program, seconds: float, frozen: bool
    ) -> None:
        program.collector.collect(seconds)
        assert program.collector.frozen is frozen

    def test_several_short_ones_are_not_a_long_one(self, program: Program) -> None:
        for _ in range(10):
            program.collector.collect(LONG / 2)
        assert not program.collector.frozen

    @pytest.mark.parametrize("generation", range(FULL))
    def test_a_collection_of_young_objects_freezes_nothing(self, program: Program, generation: int) -> None:
        program.collector.collect(5.0, generation)
        assert not program.collector.frozen

    def test_a_collection_that_began_before_the_service_freezes_nothing(self, program: Program) -> None:
        program.collector.clock.advance(5.0)
        program.collector.report("stop")
        assert not program.collector.frozen


class TestThawing:
    """The frozen objects are collected again when they no longer fit the connections."""

    def test_objects_stay_frozen_while_the_program_grows_with_its_connections(self, program: Program) -> None:
        for connections in (9, 99, 999, 9_999, 99_999):
            program.connections, program.blocks = connections, 100 * (connections + 1)
            program.collector.collect(1.0)
        assert program.collector.frozen and program.collector.thaws == 0

    def test_objects_stay_frozen_while_the_connections_leave_and_free_their_memory(self, program: Program) -> None:
        program.collector.collect(1.0)
        program.connections, program.blocks = 4, 500
        program.collector.collect(0.0)
        assert program.collector.frozen

    @pytest.mark.parametrize(("excess", "frozen"), [(-1, True), (0, True), (1, False)])
    @pytest.mark.parametrize("seconds", [0.0, 1.0])
    def test_objects_thaw_if_they_are_too_many_for_the_connections(
        self, program: Program, excess: int, frozen: bool, seconds: float
    ) -> None:
        program.collector.collect(1.0)
        program.connections, program.blocks = 99, 5000
        program.collector.collect(1.0)
        program.blocks = int(EXCESS * 5000) + excess
        program.collector.collect(seconds)
        assert program.collector.frozen is frozen

    def test_objects_thaw_if_the_connections_left_and_did_not_free_their_memory(self, program: Program) -> None:
        program.collector.collect(1.0)
        program.connections = 0
        program.collector.collect(0.0)
        assert not program.collector.frozen

    def test_the_next_long_collection_freezes_again_and_counts_from_there(self, program: Program) -> None:
        program.collector.collect(1.0)
        program.blocks = 5000
        program.collector.collect(0.0)
        program.collector.collect(1.0)
        assert program.collector.frozen
        program.blocks = 9999
        program.collector.collect(0.0)
        assert program.collector.frozen and program.collector.thaws == 1
        program.blocks = 10_001
        program.collector.collect(0.0)
        assert not program.collector.frozen and program.collector.thaws == 2

    def test_objects_that_the_application_froze_are_not_thawed(self, program: Program) -> None:
        program.collector.freeze()
        program.collector.collect(0.0)
        program.blocks = 5000
        program.collector.collect(0.0)
        program.service.stopService()
        assert program.collector.frozen


class TestService:
    """The freezing as a service."""

    def test_the_end_of_the_service_thaws_the_objects(self, program: Program) -> None:
        program.collector.collect(1.0)
        program.service.stopService()
        assert not program.collector.frozen
        program.collector.collect(1.0)
        assert not program.collector.frozen and program.collector.callbacks == []

    def test_the_service_can_start_again(self, program: Program) -> None:
        program.service.stopService()
        program.service.startService()
        program.collector.collect(1.0)
        assert program.collector.frozen

    def test_the_service_does_nothing_on_pypy(self) -> None:
        service = ShortCollections(lambda: 0, collector=SimpleNamespace())
        service.startService()
        service.stopService()

    def test_the_service_does_nothing_if_python_does_not_count_its_blocks(self) -> None:
        # As with PYTHONMALLOC=malloc.
        collector = Collector()
        service = ShortCollections(lambda: 0, collector.clock.seconds, lambda: 0, collector)
        service.startService()
        assert collector.callbacks == []
        service.stopService()


CHILD = """
import gc, itertools, json, sys, weakref
from twisted_beastws.server.garbage import ShortCollections

class Node:
    pass

def cycle():
    node = Node()
    node.itself = node
    return node

def note(name, value):
    notes[name] = value

gc.disable()
notes = {}
connections = 9
# Each collection takes a second.
service = ShortCollections(lambda: connections, itertools.count().__next__)
alive = [[] for _ in range(100_000)]
gc.collect()
note("walked before", len(gc.get_objects()))
service.startService()
gc.collect()
note("frozen", gc.get_freeze_count())
note("walked after", len(gc.get_objects()))
young = weakref.ref(cycle())
old = cycle()
gc.collect()
note("a young cycle is collected", young() is None)
del alive[50_000:]
note("frozen without references", gc.get_freeze_count())
old = weakref.ref(old)
gc.collect()
note("a frozen cycle is collected", old() is None)
connections = 0
gc.collect()
note("frozen without connections", gc.get_freeze_count())
gc.collect()
note("a thawed cycle is collected", old() is None)
note("frozen again", gc.get_freeze_count())
service.stopService()
note("frozen at the end", gc.get_freeze_count())
print(json.dumps(notes))
"""


@pytest.mark.skipif(not hasattr(gc, "freeze"), reason="PYPY HAS NO FROZEN OBJECTS")
def test_a_collection_of_cpython_walks_few_objects_after_a_long_one() -> None:
    # A process of its own: pytest has objects, and collections, of its own.
    run = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 0, run.stderr
    notes = json.loads(run.stdout)
    assert notes.pop("walked before") > 100_000 and notes.pop("frozen") > 100_000
    assert notes.pop("walked after") < 1000
    assert 50_000 < notes.pop("frozen without references") < 100_000
    assert 50_000 < notes.pop("frozen again") < 100_000
    assert notes == {
        "a young cycle is collected": True,
        "a frozen cycle is collected": False,
        "frozen without connections": 0,
        "a thawed cycle is collected": True,
        "frozen at the end": 0,
    }
