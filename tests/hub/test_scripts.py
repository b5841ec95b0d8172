"""The scripts on a real server answer as the simulated Redis does, on which the guarantees are checked."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed

from twisted_beastws.hub.linked_answers import Standing, Taken, Verified
from twisted_beastws.hub.redis_scripts import SALT

from ..support.loopback import until
from ..support.redis_server import RedisServer, redis_running
from .planes import Plane, RedisPlane
from .simulated import SimulatedRedis

FUTURE = "9000000000000-0"
"""An id from which on the clock of the server does not matter."""

BUDGETS = (2500, 9000)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_running(tmp_path_factory.mktemp("redis")) as server:
        yield server


NEW = Standing("", "", False)
"""The standing of a hub that was never connected."""


class User:
    """The user of a link that a test drives."""

    known = f"{FUTURE} "

    def __init__(self) -> None:
        self.is_linked = False
        self.server = ""
        self.link: Any = None
        self.beats = 0
        self.heard: list[tuple[Any, ...]] = []

    def linked(self) -> Deferred[None]:
        self.is_linked = True
        return succeed(None)

    def verify(self) -> Deferred[Verified]:
        return self.link.position(self.known, NEW).addCallback(self.learned)  # type: ignore[no-any-return]

    def learned(self, verified: Verified) -> Verified:
        self.server = verified.server
        return verified

    def lost(self, why: BaseException) -> None:
        self.is_linked = False

    def received(self, *arrival: Any) -> None:
        self.heard.append(arrival)

    def occupied(self) -> list[str]:
        return []

    def beat(self, *sign: Any) -> None:
        self.beats += 1


class Listener(User):
    """What subscribes to the simulated Redis."""

    def __init__(self) -> None:
        super().__init__()
        self.coming: list[Any] = []
        self.user = self


def linked(plane: Plane, monkeypatch: pytest.MonkeyPatch, names: Any, salts: Any) -> tuple[Any, User]:
    from twisted.internet import reactor

    module, token_hex = plane.link_module(), secrets.token_hex
    # Epochs have names of four bytes, and leases longer ones.
    monkeypatch.setattr(module, "token_hex", lambda size: next(names) if size == 4 else token_hex(size))
    monkeypatch.setattr(module, "randbelow", lambda most: next(salts))
    user: Any = User()
    user.link = plane.link(user, reactor, BUDGETS, "hub")
    return user.link, user


async def heard_alike(listener: Any, user: User) -> None:
    """Wait for all messages, and compare them. Each room's messages come in their order."""
    while listener.coming:
        listener.coming.pop(0)()
    await until(lambda: len(user.heard) == len(listener.heard))
    assert user.heard == listener.heard


@pytest.mark.parametrize("seed", range(25))
@pytest_twisted.ensureDeferred
async def test_a_server_and_the_simulation_have_the_same_answers(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    plane.flush()
    random = Random(seed)
    simulated = SimulatedRedis()
    made = count(1)

    def names() -> Iterator[str]:
        while True:
            # The simulated server counts in the same way, and its private count is not advanced by a look at it.
            yield f"e{simulated._made + 1}"

    def salts() -> Iterator[int]:
        while True:
            # As in `names`.
            yield (simulated._made + 2) * 1_000_003 % SALT

    link, user = linked(plane, monkeypatch, names(), salts())
    link.start()
    await until(lambda: user.beats == 1)
    simulated.name = user.server
    simulated.position(user.known, "hub", NEW)
    if seed % 2:
        # The user of this link names an id of the future, so the dataset is not its first one.
        plane.begin_first()
        simulated.data.first = True
    rooms = ["a", "b", "c \u00f6", "d"]
    await link.subscribe([None, *rooms])
    # The notice of this hub's registration may come late.
    await link.announce("a")
    await until(lambda: ("a", "", "0-0", "", b"") in user.heard)
    user.heard.clear()
    listener: Any = Listener()
    for room in (None, *rooms):
        simulated.subscribers[room] = [listener]
    known, ids = f"{FUTURE} ", ["0-0", FUTURE, "9000000000000-5"]
    for _ in range(60):
        room = random.choice(rooms)
        # One link stands for several hubs, whose names are else given once.
        hub = link._hub_name = random.choice(["hub", "hub", "another"])
        step = random.choice(
            ["publish"] * 4 + ["read", "read", "sweep", "position", "evict", "ahead", "flush", "server", "wait"]
        )
        if step == "publish":
            payload = b"x" * random.choice([10, 400, 2000, 3000]) + str(next(made)).encode()
            keep, ref = random.choice([0, 3, 100]), random.choice(["", "", f"r{random.randrange(5)}"])
            where = None if not keep and not ref and random.random() < 0.3 else room
            waiting = random.random() < 0.3
            answer = await link.publish(known, where, payload, keep, ref, waiting)
            expected: Any = simulated.publish(known, where, payload, keep, ref, BUDGETS, hub, waiting)
            if isinstance(answer, Taken) and answer.id:
                ids.append(answer.id)
        elif step == "read":
            asked = (room, random.choice(["0-0", *ids]), random.choice([1, 3, 32]), random.choice([100, 5000]))
            answer = await link.read(known, *asked)
            simulated.begin(known)
            expected = simulated.data.read(*asked)
        elif step == "sweep":
            pairs = [(each, random.choice(ids)) for each in rooms]
            answer = await link.sweep(known, pairs)
            simulated.begin(known)
            expected = simulated.data.sweep(pairs)
        elif step == "position":
            standing = Standing(
                random.choice(["", f"0 {user.server}", f"1 {user.server}", f"1 {user.server}", "1 other"]),
                random.choice(["", simulated.data.hubs.get(hub, (0, ""))[1]]),
                random.random() < 0.3,
            )
            answer, expected = await link.position(known, standing), simulated.position(known, hub, standing)
        elif step == "evict":
            if plane.evicts and " " not in room:
                plane.evict(room)
                simulated.data.evict(room)
            continue
        elif step == "ahead":
            # A hub that knows a later id than the dataset: this one is not its own.
            known = f"9000000000000-{simulated.data.latest[1] + random.choice([0, 5])} {random.choice(['', 'gone'])}"
            continue
        elif step == "server":
            plane.change_server()
            simulated.data.server = "another"
            if random.random() < 0.3:
                plane.forget_hubs()
                simulated.data.hubs.clear()
            continue
        elif step == "wait":
            # A script counts the change as so much older.
            if simulated.data.unsure is not None:
                plane.age_change(40000)
                simulated.data.unsure -= 40000
            continue
        elif random.random() < 0.3:
            await heard_alike(listener, user)
            plane.flush()
            simulated.flush()
            continue
        else:
            continue
        assert answer == expected, (step, known)
        if random.random() < 0.5:
            known = f"{answer.place.position} {answer.place.epoch}"
    await heard_alike(listener, user)
    if simulated.data.size:
        assert plane.size() == simulated.data.size
    await link.stop()


@pytest_twisted.ensureDeferred
async def test_refs_are_forgotten_in_generations(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted_beastws.hub import redis_scripts
    from twisted_beastws.hub.backplane import MAX_REFS

    redis.ask("FLUSHALL")
    small = redis_scripts.PUBLISH.replace(str(MAX_REFS), "3", -1)
    monkeypatch.setattr(redis_scripts, "PUBLISH", small)
    link, user = linked(RedisPlane(redis), monkeypatch, map(str, count()), count())
    link.start()
    await until(lambda: user.is_linked)
    ids = [(await link.publish("0-0 ", "a", b"x", 100, f"r{number}", False)).id for number in range(7)]
    again = [await link.publish("0-0 ", "a", b"x", 100, f"r{number}", False) for number in (6, 5, 4, 0)]
    assert [each.id for each in again[:3]] == [ids[6], ids[5], ids[4]]
    assert [each.again for each in again] == [True, True, True, False]
    assert int(redis.ask("HLEN beastws:0:refs:0")[1:]) + int(redis.ask("HLEN beastws:0:refs:1")[1:]) <= 6
    await link.stop()
