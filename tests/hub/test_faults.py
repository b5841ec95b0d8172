"""Sixty clients of three hubs on a real server, and the faults that the simulated Redis has, one after the other."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from twisted_beastws.hub import Hub, Message, PublishError, PublishUnknown, linked_reconnecting
from twisted_beastws.hub.backplane import BackplaneState, order_of
from twisted_beastws.hub.linked import LinkedBackplane

from ..support.loopback import until
from .planes import PLANES, Plane, plane_running
from .stubs import Stub

HUBS, CLIENTS = 3, 60
GAP = "gap"


class Address:
    """One address that leads to one server or another."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.socket = plane.socket
        self.pairs: list[Pipe] = []

    async def listen(self) -> None:
        from twisted.internet import reactor

        factory = Factory.forProtocol(lambda: Pipe(self))
        factory.noisy = False
        self.port: IListeningPort = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)

    @property
    def url(self) -> str:
        return self.plane.url_at(self.port.getHost().port)  # type: ignore[attr-defined]

    def backplane(self) -> LinkedBackplane:
        """Return a backplane on this address; its history holds all messages that a test publishes."""
        return self.plane.backplane(self.url, history=1000)

    def cut(self) -> None:
        for pair in list(self.pairs):
            pair.drop()


class Pipe(Protocol):
    """A connection from a hub, and on to the server."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.waiting = b""
        self.other: Onward | None = None

    def connectionMade(self) -> None:
        from twisted.internet import reactor

        self.address.pairs.append(self)
        factory = Factory.forProtocol(lambda: Onward(self))
        factory.noisy = False
        onward = UNIXClientEndpoint(reactor, str(self.address.socket)).connect(factory)
        onward.addErrback(lambda _: self.drop())

    def dataReceived(self, data: bytes) -> None:
        if self.other is None:
            self.waiting += data
        else:
            self.other.transport.write(data)  # type: ignore[union-attr]

    def drop(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def connectionLost(self, reason: Any = None) -> None:
        self.address.pairs.remove(self)
        if self.other is not None:
            self.other.transport.abortConnection()  # type: ignore[union-attr]


class Onward(Protocol):
    """The connection to the server."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe

    def connectionMade(self) -> None:
        self.pipe.other = self
        self.transport.write(self.pipe.waiting)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.pipe.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = None) -> None:
        self.pipe.drop()


class Client:
    """A member that keeps ids and gaps, and now and then moves to another hub."""

    def __init__(self, number: int) -> None:
        self.room = f"room {number % 4}"
        self.heard: list[str] = []
        self.texts: list[str] = []
        self.stub: Stub | None = None

    async def join(self, hub: Hub) -> None:
        after = next((each for each in reversed(self.heard) if each != GAP), None)
        self.stub = Stub(self.hears)
        began = len(self.heard)
        joining = hub.join(
            self.stub.connection, self.room, after=after, gap=lambda message: GAP, render=with_id, name="somebody"
        )
        if not await joining:
            self.heard.insert(began, GAP)
            self.heard.append(GAP)

    def hears(self, said: Any) -> None:
        if said == GAP:
            self.heard.append(GAP)
            return
        message_id, _, text = said.partition(" ")
        if message_id:
            self.heard.append(message_id)
            self.texts.append(text)


def with_id(message: Message) -> str:
    return f"{message.id or ''} {message.data!s}"


class World:
    """Hubs and clients on one address."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.hubs = [Hub(address.backplane()) for _ in range(HUBS)]
        self.clients = [Client(number) for number in range(CLIENTS)]
        self.acknowledged: dict[str, list[str]] = {client.room: [] for client in self.clients}
        self.outcomes: list[str] = []
        self.pending: list[Deferred[Any]] = []
        self.said = 0

    async def begin(self) -> None:
        for hub in self.hubs:
            hub.start()
        await gatherResults(
            [Deferred.fromCoroutine(client.join(self.hubs[at % HUBS])) for at, client in enumerate(self.clients)]
        )

    def publish(self, times: int = 1) -> None:
        for _ in range(times):
            for number, hub in enumerate(self.hubs):
                self.said += 1
                room = f"room {(self.said + number) % 4}"
                self.pending.append(Deferred.fromCoroutine(self.say(hub, room, f"m{self.said}", f"ref {self.said}")))

    async def say(self, hub: Hub, room: str, text: str, ref: str) -> None:
        """Publish as a good client does: again, if Redis did not accept the message or the outcome is unknown."""
        from twisted.internet import reactor

        while True:
            try:
                message_id = await hub.publish(room, text, ref=ref)
            except PublishError as error:
                self.outcomes.append("unknown" if isinstance(error, PublishUnknown) else "no")
                await deferLater(reactor, 0.05)
            else:
                self.acknowledged[room].append(str(message_id))
                return

    async def keep_on(self, seconds: float) -> None:
        from twisted.internet import reactor

        until_then = time.monotonic() + seconds
        while time.monotonic() < until_then:
            self.publish()
            await deferLater(reactor, 0.01)

    async def notice(self) -> None:
        """Publish until a hub has told that it could not."""

        def noticed() -> object:
            self.publish()
            return self.outcomes

        await until(noticed)

    async def move(self) -> None:
        """Every fifth client goes to the next hub, when all hubs have vouched for the data."""
        await until(lambda: all(hub.backplane.state is BackplaneState.CONNECTED for hub in self.hubs))
        for number, client in enumerate(self.clients):
            if number % 5 == 0 and client.stub is not None:
                client.stub.ends()
                await client.join(self.hubs[(number + self.said) % HUBS])

    async def settle(self) -> None:
        await until(lambda: all(hub.backplane.state is BackplaneState.CONNECTED for hub in self.hubs))
        await gatherResults(self.pending)
        self.pending.clear()
        last: dict[str, str] = {}
        for room, acknowledged in self.acknowledged.items():
            await self.say(self.hubs[0], room, "last", f"last {room}")
            last[room] = acknowledged[-1]
        await until(lambda: all(client.heard[-1] == last[client.room] for client in self.clients))

    def check(self, *, gaps: bool) -> None:
        """Nothing twice, nothing out of order, and a gap wherever something is missing."""
        for client in self.clients:
            ids = [order_of(each) for each in client.heard if each != GAP]
            assert ids == sorted(set(ids))
            texts = [text for text in client.texts if text != "last"]
            assert gaps or len(texts) == len(set(texts))
            for missed in set(self.acknowledged[client.room]) - set(client.heard):
                assert informed(client.heard, missed), f"{missed} is missing from {client.heard}"
            assert gaps or GAP not in client.heard
            assert (client.heard.count(GAP) > 0) == gaps


def informed(heard: list[str], missed: str) -> bool:
    reported = False
    for each in heard:
        if each == GAP:
            reported = True
        elif order_of(each) < order_of(missed):
            reported = False
        elif reported:
            return True
    return reported


@pytest.fixture
def quiet(logged: Callable[..., Any]) -> Iterator[None]:
    yield
    assert logged(type(None)) is not None


@pytest.fixture(scope="module", params=PLANES)
def faulty_plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A server of this module's own, because it is left with other settings."""
    with plane_running(request.param, tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture
def plane(faulty_plane: Plane) -> Plane:
    """A server without data, which the test may kill."""
    if faulty_plane.server.process.poll() is not None:
        faulty_plane.server.start()
    faulty_plane.make_writable()
    faulty_plane.flush()
    return faulty_plane


@pytest.fixture
def world(plane: Plane, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # Only a server that is stopped has to be taken for silent soon: on a busy machine others are slow, too.
    if "stopped_for_a_while" in request.node.name:
        monkeypatch.setattr(linked_reconnecting, "REPLY_TIMEOUT", 1.0)
    monkeypatch.setattr(linked_reconnecting, "BEAT", 0.5)
    monkeypatch.setattr(linked_reconnecting, "PROBE", 0.1)
    monkeypatch.setattr(linked_reconnecting, "backoff", lambda failures: 0.05)
    address = Address(plane)
    pytest_twisted.blockon(Deferred.fromCoroutine(address.listen()))
    world = World(address)
    pytest_twisted.blockon(Deferred.fromCoroutine(world.begin()))
    yield world
    pytest_twisted.blockon(gatherResults([hub.stop() for hub in world.hubs]))
    address.cut()
    pytest_twisted.blockon(address.port.stopListening())


def cut(world: World, plane: Plane) -> None:
    world.address.cut()


def killed_and_started(world: World, plane: Plane) -> None:
    plane.server.kill()
    plane.server.start()


def stopped_for_a_while(world: World, plane: Plane) -> None:
    plane.server.stop()


def full(world: World, plane: Plane) -> None:
    plane.make_full()


def read_only(world: World, plane: Plane) -> None:
    plane.make_read_only()


def well(world: World, plane: Plane) -> None:
    plane.server.go_on()
    plane.make_writable()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("fault", [cut, killed_and_started, stopped_for_a_while, full, read_only])
@pytest_twisted.ensureDeferred
async def test_nothing_is_lost_twice_or_out_of_order(
    plane: Plane, world: World, fault: Callable[[World, Plane], None]
) -> None:
    await world.keep_on(0.3)
    fault(world, plane)
    await world.keep_on(0.2)
    if fault is not cut:
        await world.notice()
    well(world, plane)
    await world.keep_on(0.2)
    await world.move()
    await world.settle()
    world.check(gaps=False)
    assert sum(map(len, world.acknowledged.values())) == world.said + 4


@pytest.mark.usefixtures("quiet")
@pytest_twisted.ensureDeferred
async def test_an_emptied_server_is_a_gap_for_every_client(plane: Plane, world: World) -> None:
    await world.keep_on(0.2)
    plane.flush()
    await world.keep_on(0.2)
    await world.settle()
    world.check(gaps=True)


@asynccontextmanager
async def replicated(plane: Plane, world: World) -> AsyncIterator[Any]:
    """Yield a replica of the server, while the world's messages go on; stop the hubs at the end."""
    with plane.replica() as replica:
        await world.keep_on(0.2)
        yield replica
        await gatherResults([hub.stop() for hub in world.hubs])
        world.address.cut()


@pytest.mark.usefixtures("quiet")
@pytest_twisted.ensureDeferred
async def test_a_failover_to_a_replica_that_lags_is_a_gap_for_every_client(plane: Plane, world: World) -> None:
    async with replicated(plane, world) as replica:
        await until(lambda: replica.follows())
        # It gets nothing more: later messages are lost with the primary.
        replica.part()
        await world.keep_on(0.2)
        world.address.socket = replica.socket
        plane.server.kill()
        # The address leads to the replica, which is not promoted yet.
        await world.keep_on(0.3)
        replica.promote()
        await world.keep_on(0.2)
        await world.settle()
        world.check(gaps=True)


@pytest.mark.usefixtures("quiet")
@pytest_twisted.ensureDeferred
async def test_a_failover_to_a_replica_that_has_everything_is_no_gap(plane: Plane, world: World) -> None:
    async with replicated(plane, world) as replica:
        await gatherResults(world.pending)
        place = plane.log_place()
        await until(lambda: replica.log_place() >= place)
        world.address.socket = replica.socket
        plane.server.kill()
        replica.promote()
        await world.keep_on(0.2)
        await world.settle()
        world.check(gaps=False)
