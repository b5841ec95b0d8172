"""Presence on the servers that join hubs: the users of rooms, and events when users join and leave."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import pytest_twisted

from twisted_beastws.hub import Hub, linked_names, linked_reconnecting, presence
from twisted_beastws.hub.linked_names import ANNOUNCE_DELAY
from twisted_beastws.hub.linked_reconnecting import BEAT, LEASE
from twisted_beastws.hub.linked_recovery import STEP
from twisted_beastws.hub.presence import INTERVAL

from ..support.loopback import until
from .planes import Plane, part_with
from .stubs import Stub, connected
from .test_presence import Seen

NODE = """
import sys
from twisted.internet import reactor
from twisted_beastws.hub import linked_reconnecting
from twisted_beastws.hub.planes import backplane_at

linked_reconnecting.BEAT, linked_reconnecting.LEASE = 0.2, 1
backplane = backplane_at(sys.argv[1])
backplane.start(lambda message, exclude: None)

def enter(_):
    for number, name in enumerate(["ann", "b\\nob"]):
        backplane.enter("a", str(number), name, "2")

reactor.callWhenRunning(lambda: backplane.subscribe("a").addCallback(enter))
reactor.run()
"""
"""A node with two users, whose lease is short."""


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hubs announce and list changes soon."""
    monkeypatch.setattr(linked_names, "ANNOUNCE_DELAY", 0.02)
    monkeypatch.setattr(presence, "INTERVAL", 0.05)


def test_the_documented_times_are_those_of_the_constants() -> None:
    assert ANNOUNCE_DELAY + INTERVAL <= 2
    assert LEASE + BEAT + INTERVAL <= 45


@pytest.mark.usefixtures("prompt")
@pytest_twisted.ensureDeferred
async def test_the_names_are_those_of_all_running_hubs(plane: Plane, real_hub: Callable[..., Hub]) -> None:
    one, two = real_hub(plane.url), real_hub(plane.url)
    await connected(one, two)
    ann, bob = Stub(), Stub()
    watches = [hub.watch("a", Seen()) for hub in (one, two)]
    await one.join(ann.connection, "a", name="ann", data={"n": "\n"})
    await two.join(bob.connection, "a", name="b\u00f6b 007")
    await until(lambda: all(len(watch.people) == 2 for watch in watches))
    for hub, watch in zip((one, two), watches, strict=True):
        assert await hub.who("a") == watch.people == {"ann": {"n": "\n"}, "b\u00f6b 007": None}
    ann.ends()
    await until(lambda: all(list(watch.people) == ["b\u00f6b 007"] for watch in watches))
    for hub in (one, two):
        assert await hub.who("a") == {"b\u00f6b 007": None}
    # The members stay, and are listed no more.
    await two.stop()
    assert bob.state is bob.state.OPEN
    assert await one.who("a") == {}


@pytest.mark.usefixtures("prompt")
@pytest_twisted.ensureDeferred
async def test_each_hub_gets_each_join_and_leave_once(plane: Plane, real_hub: Callable[..., Hub]) -> None:
    hubs = [real_hub(plane.url) for _ in range(3)]
    await connected(*hubs)
    everyone = [Seen() for _ in hubs]
    for hub, seen in zip(hubs, everyone, strict=True):
        hub.watch("a", seen)
    members = [Stub(), Stub(), Stub()]
    await hubs[0].join(members[0].connection, "a", name="ann", data=1)
    await until(lambda: all(seen.names == ["+ann"] for seen in everyone))
    await hubs[1].join(members[1].connection, "a", name="ann", data=2)
    await hubs[1].join(members[2].connection, "a", name="bob", data=[3])
    await until(lambda: all(seen.names == ["+ann", "+bob"] for seen in everyone))
    members[0].ends()
    members[2].ends()
    await until(lambda: all(seen.names == ["+ann", "+bob", "-bob"] for seen in everyone))
    members[1].ends()
    await until(lambda: all(len(seen.names) == 4 for seen in everyone))
    for seen in everyone:
        assert seen.names == ["+ann", "+bob", "-bob", "-ann"]
        assert [event.data for event in seen.events[:3]] == [1, [3], [3]]


@pytest.mark.usefixtures("prompt", "quiet")
@pytest_twisted.ensureDeferred
async def test_the_users_of_a_killed_process_leave_and_no_others(plane: Plane, real_hub: Callable[..., Hub]) -> None:
    one, seen = real_hub(plane.url), Seen()
    await connected(one)
    watch = one.watch("a", seen)
    await one.join(Stub().connection, "a", name="ann", data={"n": "\n"})
    process = subprocess.Popen([sys.executable, "-c", NODE, plane.url])
    try:
        await until(lambda: "+b\nob" in seen.names)
    finally:
        process.kill()
        process.wait()
    await until(lambda: list(watch.people) == ["ann"])
    assert await one.who("a") == {"ann": {"n": "\n"}} == watch.people
    # Its lease is so short that a busy machine may end it earlier.
    assert seen.names.count("+ann") == 1 and "-ann" not in seen.names
    assert [name for name in seen.names if name != "+ann"][:2] == ["+b\nob", "-b\nob"]


@pytest.mark.usefixtures("prompt", "quiet")
@pytest_twisted.ensureDeferred
async def test_users_of_a_hub_without_a_sign_of_life_leave_and_return_with_the_next_one(
    plane: Plane, real_hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linked_reconnecting, "LEASE", 1)
    one, two = real_hub(plane.url), real_hub(plane.url)
    await connected(one, two)
    await one.join(Stub().connection, "a", name="ann")
    await two.join(Stub().connection, "a", name="bob")
    watch = one.watch("a", Seen())
    await until(lambda: sorted(watch.people) == ["ann", "bob"])
    # The hub misses its signs of life, as a process that hangs does.
    beating = part_with(two.backplane, "a")._link._beating
    beating.stop()
    await until(lambda: list(watch.people) == ["ann"])
    beating.start(0.2)
    await until(lambda: sorted(watch.people) == ["ann", "bob"])


@pytest.mark.usefixtures("prompt", "quiet")
@pytest_twisted.ensureDeferred
async def test_a_restart_of_the_server_is_no_leave(plane: Plane, real_hub: Callable[..., Hub]) -> None:
    one, two, seen = real_hub(plane.url), real_hub(plane.url), Seen()
    await connected(one, two)
    one.watch("a", seen)
    await one.join(Stub().connection, "a", name="ann")
    await two.join(Stub().connection, "a", name="bob")
    await until(lambda: len(seen.names) == 2)
    plane.server.kill()
    plane.server.start()
    await until(lambda: all(hub.backplane.losses for hub in (one, two)))  # type: ignore[attr-defined]
    await connected(one, two)
    await one.join(Stub().connection, "a", name="eve")
    await until(lambda: len(seen.names) == 3)
    assert sorted(seen.names) == ["+ann", "+bob", "+eve"]
    assert sorted(await one.who("a")) == ["ann", "bob", "eve"]


@pytest_twisted.ensureDeferred
async def test_a_present_user_is_listed_while_others_leave(plane: Plane, real_hub: Callable[..., Hub]) -> None:
    hub = real_hub(plane.url)
    await connected(hub)
    members = {name: Stub() for name in "abcdefghij"}
    for name, member in members.items():
        await hub.join(member.connection, "a", name=name)
    link, cursor = part_with(hub.backplane, "a").link, 0
    left, listed = set[str](), set[str]()
    while True:
        page = await link.roster("a", cursor, 3)
        listed.update(page.names)
        cursor = page.cursor
        if not cursor:
            break
        for name in page.names:
            left.add(name)
            members[name].ends()
    assert listed == set(members)
    assert sorted(await hub.who("a")) == sorted(set(members) - left)


@pytest_twisted.ensureDeferred
async def test_a_room_of_several_pages_is_listed_whole(plane: Plane, real_hub: Callable[..., Hub]) -> None:
    hub = real_hub(plane.url)
    await connected(hub)
    members = {f"{number}": f"user{number}" for number in range(2 * STEP)}
    await hub.backplane.subscribe("a")
    for member, name in members.items():
        hub.backplane.enter("a", member, name)
    link = part_with(hub.backplane, "a").link
    totals = [0]

    def listed() -> bool:
        link.roster("a", 0, 1).addCallback(lambda page: totals.append(page.total))
        return totals[-1] == len(members)

    await until(listed)
    assert sorted(await hub.who("a")) == sorted(members.values())
    assert (await hub.backplane.roster("a", None, 3)).members == len(members)
