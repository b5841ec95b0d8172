"""Very many rooms lose Redis and return to it in bounded steps."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest

from twisted_beastws.hub.linked_recovery import MAX_CATCH_UPS, STEP

from .nodes import Node
from .simulated import BUDGETS, SimulatedRedis
from .stubs import Stub

ROOMS = 2000


@pytest.fixture
def quiet(logged: Callable[..., Any]) -> Any:
    yield
    logged(type(None))


def step(node: Node) -> None:
    node.link_.execute()
    node.link_.answer()
    node.link_.take_subscription()
    node.link_.receive()


@pytest.mark.usefixtures("quiet")
def test_many_rooms_are_subscribed_swept_caught_up_and_listed_in_bounded_steps() -> None:
    server = SimulatedRedis()
    one = Node(server)
    heard: dict[str | None, list[str | bytes]] = {}
    # The test takes the hub's place, and notes what would be delivered.
    one._deliver_to_hub = lambda message, exclude: heard.setdefault(message.room, []).append(message.data)
    for number in range(ROOMS):
        one.subscribe(f"room {number}")
        one.enter(f"room {number}", str(number), "name")
    one.link_.settle()
    one.link_.cut()
    for number in range(0, ROOMS, 2):
        server.publish("0-0 ", f"room {number}", b"other 1 t\nmissed", 100, "", BUDGETS)
    sizes: list[int] = []
    subscribe, sweep = one.link_.subscribe, one.link_.sweep
    one.link_.subscribe = lambda rooms: sizes.append(len(rooms)) or subscribe(rooms)  # type: ignore[func-returns-value,method-assign]
    one.link_.sweep = lambda known, rooms: sizes.append(len(rooms)) or sweep(known, rooms)  # type: ignore[func-returns-value,method-assign]
    one.link_.connect()
    while one.link_.busy():
        # Never more than a step, some catch-ups and the members of a step wait for Redis.
        assert len(one.link_.sent) + len(one.link_.subscribing) <= MAX_CATCH_UPS + STEP + 2
        step(one)
    one.link_.beat()
    while one.link_.busy():
        assert len(one.link_.sent) <= MAX_CATCH_UPS + STEP + 2
        one.link_.execute()
        one.link_.answer()
    assert max(sizes) == STEP
    assert heard == {f"room {number}": ["missed"] for number in range(0, ROOMS, 2)}
    assert len(server.names) == ROOMS and all(len(names) == 1 for names in server.names.values())


@pytest.mark.usefixtures("quiet")
def test_a_room_takes_messages_before_all_others_are_back() -> None:
    server = SimulatedRedis()
    one = Node(server)
    member = Stub()
    one.hub.join(member.connection, "first", render=lambda message: message.data)
    for number in range(3 * STEP):
        one.subscribe(f"room {number}")
    one.link_.settle()
    one.link_.cut()
    one.link_.connect()
    while not one.is_linked:
        step(one)
    published = one.hub.publish("first", "early")
    while not published.called:
        step(one)
    assert any(reader.waiting is not None for reader in one.readers.values())
    one.link_.settle()
    assert member.heard == ["early"]


def test_a_room_with_a_member_costs_few_objects_of_the_garbage_collector() -> None:
    one = Node(SimulatedRedis())
    members = [Stub() for _ in range(ROOMS)]
    gc.collect()
    before = len(gc.get_objects())
    for number, member in enumerate(members):
        one.hub.join(member.connection, f"room {number}")
        one.link_.settle()
    gc.collect()
    # The reader, the member, a dict on either side, five for the callback at the end; one is the simulation's.
    # Python 3.14 also tracks dicts that are empty or hold plain values: four more.
    most = 10.5 if sys.version_info < (3, 14) else 14.5
    assert (len(gc.get_objects()) - before) / ROOMS < most
    assert one.hub.room_count == ROOMS
