"""A backplane of many parts, on simulated servers: what belongs to one part, and what to all of them."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_beastws.hub import Hub, PublishError
from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.hub.linked_errors import LinkLost, Refused
from twisted_beastws.hub.redis_cluster import RedisClusterBackplane
from twisted_beastws.hub.redis_cluster_errors import refused_by_cluster
from twisted_beastws.hub.redis_cluster_part import TAGS, part_of

from ..support.log import logged_lines
from .simulated import SimulatedLink, SimulatedRedis
from .stubs import Stub, done, outcome

PARTS = 16


class Parted(RedisClusterBackplane):
    """A backplane whose parts have simulated servers, and its hub."""

    def __init__(self, servers: list[SimulatedRedis], **options: Any) -> None:
        self.clock = Clock()
        super().__init__("redis+cluster://h", reactor=self.clock, **options)
        self.links = [SimulatedLink(server, part) for server, part in zip(servers, self.parts, strict=True)]
        for part, link in zip(self.parts, self.links, strict=True):
            # The simulation has no address to connect to.
            part._make_link = lambda link=link: link  # type: ignore[method-assign,misc]
        self.hub = Hub(self, reactor=self.clock)
        self.hub.start()

    def returns(self, *numbers: int) -> None:
        """Connect parts, or all."""
        for number in numbers or range(PARTS):
            self.links[number].connect()
            self.settle()
            self.links[number].beat()
            self.settle()

    def settle(self) -> None:
        for link in self.links:
            link.settle()

    def joins(self, room: str, **options: Any) -> Stub:
        stub = Stub()
        joining = self.hub.join(stub.connection, room, **options)
        self.settle()
        assert outcome(joining) is True
        return stub

    def says(self, room: str, text: str, **options: Any) -> Any:
        published = self.hub.publish(room, text, **options)
        self.settle()
        return done(published)


@pytest.fixture
def servers() -> list[SimulatedRedis]:
    return [SimulatedRedis() for _ in range(PARTS)]


@pytest.fixture
def hub_of_parts(servers: list[SimulatedRedis]) -> Parted:
    backplane = Parted(servers)
    backplane.returns()
    return backplane


@pytest.fixture
def lines(logging: None) -> Iterator[list[str]]:
    with logged_lines() as lines:
        yield lines


class TestPlaces:
    """The part of the cluster in which a room is kept."""

    def test_the_part_of_a_room_never_changes(self) -> None:
        """Hubs of all versions must look for a room in the same place."""
        rooms = ["", "a", "b", "news", "room 1", "\0commands", "Zürich", "👋"]
        assert [part_of(room) for room in rooms] == [0, 3, 9, 0, 11, 11, 14, 5]
        assert part_of(None) == 0

    def test_rooms_spread_evenly(self) -> None:
        counts = [0] * PARTS
        for number in range(16_000):
            counts[part_of(f"room {number}")] += 1
        assert min(counts) > 900 and max(counts) < 1100

    def test_each_sixteenth_of_the_slots_has_one_part(self) -> None:
        slots = [crc_hqx(tag.encode(), 0) % 16384 for tag in TAGS]
        assert sorted(slot // 1024 for slot in slots) == list(range(16))
        assert all(256 <= slot % 1024 < 768 for slot in slots)
        assert TAGS[0] == "0"

    def test_the_slot_of_a_key_is_that_of_redis_clusters_specification(self) -> None:
        pytest.importorskip("txredisapi", reason="there is no txredisapi (the extra: redis)")
        from twisted_beastws.hub.redis_cluster_link import slot_of

        # The CRC of 123456789 is in the specification of Redis Cluster.
        assert slot_of("123456789") == 0x31C3
        assert slot_of("0") == 13907


class TestRooms:
    """Rooms that are spread over the parts."""

    def test_each_room_is_in_its_part_alone(self, servers: list[SimulatedRedis], hub_of_parts: Parted) -> None:
        members = {room: hub_of_parts.joins(room, name="ann") for room in ("a", "b", "news")}
        for room, member in members.items():
            message_id = hub_of_parts.says(room, f"to {room}")
            assert message_id is not None and member.heard == [f"to {room}"]
            listed = hub_of_parts.hub.who(room)
            hub_of_parts.settle()
            assert done(listed) == {"ann": None}
        places = {room: [bool(room in server.names) for server in servers] for room in members}
        for room in members:
            assert places[room] == [number == part_of(room) for number in range(PARTS)]

    def test_a_message_to_all_rooms_is_delivered_once(self, hub_of_parts: Parted) -> None:
        members = [hub_of_parts.joins(room) for room in ("a", "b", "news")]
        hub_of_parts.hub.publish_to_all("all")
        hub_of_parts.settle()
        assert [member.heard for member in members] == [["all"]] * 3

    def test_a_client_returns_to_the_history_of_its_room(self, hub_of_parts: Parted) -> None:
        first = hub_of_parts.says("a", "first")
        hub_of_parts.says("b", "other")
        hub_of_parts.says("a", "second")
        assert hub_of_parts.joins("a", after=first).heard == ["second"]

    def test_a_lost_part_leaves_the_others_working(self, hub_of_parts: Parted) -> None:
        here, there = hub_of_parts.joins("a", gap=lambda message: "GAP"), hub_of_parts.joins("b")
        assert part_of("a") != part_of("b")
        hub_of_parts.links[part_of("a")].cut()
        assert hub_of_parts.state is BackplaneState.CONNECTING
        assert isinstance(hub_of_parts.says("a", "here alone"), PublishError)
        assert hub_of_parts.says("b", "taken") is not None
        assert (here.heard, there.heard) == (["here alone"], ["taken"])
        hub_of_parts.returns(part_of("a"))
        assert [hub_of_parts.state] == [BackplaneState.CONNECTED]
        assert hub_of_parts.says("a", "taken") is not None
        assert here.heard == ["here alone", "taken"]


class TestAllParts:
    """Properties of all parts together: states, budgets and log lines."""

    def test_the_backplane_is_connected_when_all_parts_are(self, servers: list[SimulatedRedis]) -> None:
        backplane = Parted(servers)
        states = []
        for number in range(PARTS):
            states.append((backplane.state, backplane.ready))
            backplane.returns(number)
        assert states == [(BackplaneState.CONNECTING, False)] * PARTS
        assert (backplane.state, backplane.ready) == (BackplaneState.CONNECTED, True)
        backplane.hub.stop()
        assert (backplane.state, backplane.ready) == (BackplaneState.STOPPED, False)

    def test_the_budgets_are_shared_out(self, servers: list[SimulatedRedis]) -> None:
        parts = Parted(servers, max_history=1 << 26, max_room_history=1 << 23).parts
        assert {(part.max_room_history, part.max_history) for part in parts} == {(1 << 22, 1 << 22)}
        parts = Parted(servers, max_history=1 << 26, max_room_history=1 << 10).parts
        assert {(part.max_room_history, part.max_history) for part in parts} == {(1 << 10, 1 << 22)}

    @pytest.mark.parametrize(("more", "refused"), [(-1, False), (0, False), (1, True)])
    def test_the_pending_bytes_of_all_parts_are_bounded_together(
        self, servers: list[SimulatedRedis], more: int, refused: bool
    ) -> None:
        backplane = Parted(servers)
        backplane.returns()
        backplane.hub.publish("a", "x" * 1000)
        waiting = backplane.in_flight
        # A lower limit than the package's, so that the test needs few bytes.
        backplane._load.most = 2 * waiting
        published = backplane.hub.publish("b", "y" * (1000 + more))
        if refused:
            assert isinstance(done(published), PublishError)
            assert backplane.failures == {"overloaded": 1}
        backplane.settle()
        assert backplane.in_flight == 0
        assert isinstance(done(published), str) != refused

    def test_slow_members_stop_the_reading_of_all_parts(
        self, hub_of_parts: Parted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("twisted_beastws.hub.linked_pace.MAX_UNDELIVERED", 2)
        slow = [Deferred[None](), Deferred[None]()]
        for part, sent in zip((3, 5), slow, strict=True):
            # As if members of the part's rooms were slow; the pace of all parts has no public name.
            hub_of_parts.parts[part]._pace.count(sent)
        assert all(link.paused for link in hub_of_parts.links)
        slow[0].callback(None)
        assert not any(link.paused for link in hub_of_parts.links)

    def test_losses_and_gaps_are_summed(self, servers: list[SimulatedRedis], hub_of_parts: Parted) -> None:
        members = [hub_of_parts.joins(room, gap=lambda message: "GAP") for room in ("a", "b")]
        for room in ("a", "b"):
            hub_of_parts.links[part_of(room)].cut()
            servers[part_of(room)].data = SimulatedRedis().data
        hub_of_parts.returns(part_of("a"), part_of("b"))
        assert (hub_of_parts.losses, hub_of_parts.gaps) == (2, 2)
        assert [member.heard for member in members] == [["GAP"], ["GAP"]]

    def test_a_line_that_concerns_many_parts_is_logged_once(
        self, servers: list[SimulatedRedis], lines: list[str]
    ) -> None:
        backplane = Parted(servers)
        backplane.returns()
        assert [line for line in lines if "is connected" in line] == lines and len(lines) == 1
        lines.clear()
        for link in backplane.links:
            link.cut(why=LinkLost("it is gone"))
        assert len(lines) == 1
        assert lines[0].startswith(
            "a part of the backplane redis+cluster://h:6379 is away; the hub tries again: it is gone"
        )
        for server in servers:
            server.data = SimulatedRedis().data
        lines.clear()
        backplane.returns()
        assert len(lines) == 2
        assert "has another dataset than before" in lines[0] and "is connected" in lines[1]

    def test_the_backplane_gives_up_once(self, servers: list[SimulatedRedis], lines: list[str]) -> None:
        backplane = Parted(servers)
        why = refused_by_cluster("ERR This instance has cluster support disabled")
        for part in backplane.parts[:3]:
            part.gave_up(why)
        line = (
            "the backplane redis+cluster://h:6379 cannot be used: this Redis is no node of a Redis Cluster: give"
            " redis://host instead of redis+cluster://host"
        )
        assert outcome(backplane.refused) == line
        assert [each for each in lines if line in each] == lines and len(lines) == 1
        assert backplane.state is BackplaneState.REFUSING

    def test_the_signs_of_life_of_all_parts_report_presence_once(self, hub_of_parts: Parted) -> None:
        rooms: list[str | None] = []
        hub_of_parts.presence_changed = rooms.append
        for link in hub_of_parts.links:
            link.beat()
            link.settle()
        assert rooms == [None]
        hub_of_parts.joins("a", name="ann")
        assert "a" in rooms


class TestArguments:
    """Arguments that the constructor refuses."""

    @pytest.mark.parametrize("prefix", ["a{b", "a}b", "{x}"])
    def test_a_prefix_with_braces_is_refused(self, prefix: str) -> None:
        with pytest.raises(ValueError, match="must have no braces, which say where a key belongs"):
            RedisClusterBackplane("redis+cluster://h", prefix=prefix)

    def test_an_empty_prefix_is_refused_by_the_name_of_the_class(self) -> None:
        with pytest.raises(ValueError, match=r"RedisClusterBackplane\(prefix=''\): must be 1 to 64 printable ASCII"):
            RedisClusterBackplane("redis+cluster://h", prefix="")

    @pytest.mark.parametrize("url", ["redis://h", "unix:///socket", "redis+sentinel://h/service"])
    def test_another_url_is_refused(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"takes redis\+cluster://host: give other URLs to RedisBackplane"):
            RedisClusterBackplane(url)

    def test_budgets_are_checked(self) -> None:
        with pytest.raises(ValueError, match=r"RedisClusterBackplane\(max_room_history=2\)"):
            RedisClusterBackplane("redis+cluster://h", max_room_history=2, max_history=1)


@pytest.mark.parametrize(
    ("text", "state", "remedy", "words"),
    [
        ("MOVED 5649 10.0.0.1:6379", BackplaneState.READ_ONLY, "RECONNECT", "another node of the Redis Cluster"),
        ("ASK 5649 10.0.0.1:6379", BackplaneState.REFUSING, "WAIT", "is moving this part"),
        ("TRYAGAIN Multiple keys request", BackplaneState.REFUSING, "WAIT", "is moving this part"),
        (
            "ERR Script attempted to access a non local key in a cluster node script: 1",
            BackplaneState.REFUSING,
            "WAIT",
            "is moving this part",
        ),
        ("CLUSTERDOWN The cluster is down", BackplaneState.REFUSING, "WAIT", "the Redis Cluster is down"),
        ("ERR unknown command 'SSUBSCRIBE', with", BackplaneState.REFUSING, "RECONNECT", "version 7.0 or newer"),
        ("NOPERM no permissions to run 'ssubscribe'", BackplaneState.REFUSING, "RECONNECT", "lacks a permission"),
        ("OOM command not allowed", BackplaneState.FULL, "WAIT", "no memory left"),
    ],
)
def test_the_errors_of_a_node_are_states(text: str, state: BackplaneState, remedy: str, words: str) -> None:
    refused: Refused = refused_by_cluster(text)
    assert (refused.trouble.state, refused.trouble.remedy.name) == (state, remedy)
    assert words in refused.trouble.logged
    assert not any(word in refused.trouble.public for word in ("Redis", "Cluster", "slot"))
