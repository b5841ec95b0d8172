"""The connection as a consumer of bytes and as a producer of messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from twisted_beastws import Limits, State, WebSocketProtocol
from twisted_beastws.connection.producers import TURN

from ..support.inside import inside
from ..support.states import state_of

pytestmark = pytest.mark.usefixtures("logged")

LIMITS = Limits(high_water=100, low_water=50, max_message_size=1000, max_buffered=1000)


class Producer:
    """Records the calls of its consumer; as a pull producer it writes ten bytes at each `resumeProducing`."""

    def __init__(self, consumer: Any = None) -> None:
        self.told: list[str] = []
        self.consumer = consumer

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")
        if self.consumer is not None:
            self.consumer.write(b"x" * 10)

    def stopProducing(self) -> None:
        self.told.append("stop")


class Broken(Producer):
    def stopProducing(self) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("lost", [False, True])
def test_a_producer_that_cannot_be_stopped_does_not_delay_the_end(
    connect: Callable[..., Any], logged: Callable[..., list[Any]], lost: bool
) -> None:
    peer = connect()
    closed: list[Any] = []
    peer.protocol.when_closed().addCallback(closed.append)
    peer.protocol.registerProducer(Broken(), True)
    if not lost:
        inside(peer.protocol).server.drain()
        assert peer.reads()[:1] == b"\x88"
    peer.leaves()
    assert len(closed) == 1 and inside(peer.protocol).server.connections == set()
    assert len(logged(ZeroDivisionError)) == 1


def test_the_protocol_provides_both_interfaces(connect: Callable[..., Any]) -> None:
    protocol = connect().protocol
    assert verifyObject(IConsumer, protocol) and verifyObject(IPushProducer, protocol)


class TestPushProducer:
    """`IConsumer.registerProducer` with ``streaming=True``."""

    def test_the_producer_is_paused_above_high_water_and_resumed_at_low_water(
        self, connect: Callable[..., Any]
    ) -> None:
        peer = connect(limits=LIMITS)
        producer = Producer()
        peer.protocol.registerProducer(producer, True)
        peer.transport.stall()
        peer.protocol.write(b"x" * 40)
        assert producer.told == []
        peer.protocol.write(b"x" * 56)
        assert peer.protocol.buffered_amount == 100 and producer.told == []
        peer.protocol.write(b"")
        assert producer.told == ["pause"]
        peer.protocol.write(b"x")
        assert producer.told == ["pause"]
        peer.transport.flow()
        assert producer.told == ["pause", "resume"] and peer.protocol.buffered_amount == 0

    def test_a_producer_registered_at_high_water_is_paused_at_once(self, connect: Callable[..., Any]) -> None:
        peer = connect(limits=LIMITS)
        peer.transport.stall()
        peer.protocol.send(b"x" * 200)
        producer = Producer()
        peer.protocol.registerProducer(producer, True)
        assert producer.told == ["pause"]

    def test_a_second_producer_is_refused(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        peer.protocol.registerProducer(Producer(), True)
        with pytest.raises(RuntimeError, match="not unregistered"):
            peer.protocol.registerProducer(Producer(), True)
        peer.protocol.unregisterProducer()
        peer.protocol.registerProducer(Producer(), True)

    def test_an_unregistered_producer_is_not_called(self, connect: Callable[..., Any]) -> None:
        peer = connect(limits=LIMITS)
        producer = Producer()
        peer.protocol.registerProducer(producer, True)
        peer.protocol.unregisterProducer()
        peer.transport.stall()
        peer.protocol.send(b"x" * 200)
        peer.leaves()
        assert producer.told == []

    def test_the_producer_is_stopped_when_the_connection_is_lost(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        producer, late = Producer(), Producer()
        peer.protocol.registerProducer(producer, True)
        peer.leaves()
        peer.protocol.registerProducer(late, True)
        assert producer.told == late.told == ["stop"]

    @pytest.mark.parametrize(
        "begins", [lambda peer: peer.protocol.close(), lambda peer: peer.sends(peer.close())], ids=["we", "peer"]
    )
    def test_the_producer_is_stopped_when_the_connection_begins_to_close(
        self, connect: Callable[..., Any], begins: Callable[..., Any]
    ) -> None:
        peer = connect(limits=LIMITS)
        producer, late = Producer(), Producer()
        peer.protocol.registerProducer(producer, True)
        peer.transport.stall()
        peer.protocol.write(b"x" * 200)
        begins(peer)
        peer.protocol.registerProducer(late, True)
        assert (producer.told, late.told) == (["pause", "stop"], ["stop"])
        peer.transport.flow()
        peer.leaves()
        assert (producer.told, late.told) == (["pause", "stop"], ["stop"])


class TestPullProducer:
    """`IConsumer.registerProducer` with ``streaming=False``."""

    def test_the_producer_is_asked_once_a_turn_until_the_reader_is_slow(
        self, connect: Callable[..., Any], clock: Clock
    ) -> None:
        peer = connect(limits=LIMITS)
        producer = Producer(peer.protocol)
        peer.protocol.registerProducer(producer, False)
        assert producer.told == []
        clock.pump([TURN] * 3)
        assert producer.told == ["resume"] * 3
        peer.transport.stall()
        clock.pump([TURN] * 30)
        assert 100 < peer.protocol.buffered_amount <= 112
        asked = len(producer.told)
        clock.pump([TURN] * 3)
        assert len(producer.told) == asked
        peer.transport.flow()
        clock.pump([TURN])
        assert len(producer.told) == asked + 1

    def test_an_unregistered_producer_is_not_asked(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect()
        producer = Producer(peer.protocol)
        peer.protocol.registerProducer(producer, False)
        clock.pump([TURN])
        peer.protocol.unregisterProducer()
        clock.pump([TURN] * 2)
        assert producer.told == ["resume"]

    def test_the_producer_is_stopped_when_the_connection_is_lost(
        self, connect: Callable[..., Any], clock: Clock
    ) -> None:
        peer = connect()
        producer = Producer(peer.protocol)
        peer.protocol.registerProducer(producer, False)
        clock.pump([TURN])
        peer.leaves()
        assert producer.told == ["resume", "stop"] and clock.calls == []

    def test_the_producer_may_unregister_when_asked(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect()

        class Once(Producer):
            def resumeProducing(self) -> None:
                super().resumeProducing()
                self.consumer.unregisterProducer()

        producer = Once(peer.protocol)
        peer.protocol.registerProducer(producer, False)
        clock.pump([TURN] * 3)
        assert producer.told == ["resume"]


class TestAsAProducer:
    """The connection as an `IPushProducer` of messages."""

    class Texts(WebSocketProtocol):
        heard: list[str]

        def opened(self) -> None:
            self.heard = []

        def text_received(self, text: str) -> None:
            self.heard.append(text)
            if text == "stop":
                self.pauseProducing()

    def test_a_paused_connection_delivers_and_reads_nothing(self, connect: Callable[..., Any]) -> None:
        peer = connect(self.Texts)
        peer.sends(peer.text("a") + peer.text("stop") + peer.text("b"))
        assert peer.protocol.heard == ["a", "stop"] and peer.transport.producerState == "paused"
        peer.sends(peer.text("c"))
        peer.protocol.resumeProducing()
        assert peer.protocol.heard == ["a", "stop", "b", "c"] and peer.transport.producerState == "producing"

    def test_a_pause_after_the_end_does_nothing(self, connect: Callable[..., Any]) -> None:
        peer = connect(opened=True)
        peer.leaves()
        peer.protocol.pauseProducing()
        peer.protocol.resumeProducing()

    def test_silence_during_a_pause_is_not_counted(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(self.Texts)
        peer.protocol.pauseProducing()
        clock.pump([100.0] * 5)
        assert state_of(peer.protocol) is State.OPEN
        peer.protocol.resumeProducing()
        clock.pump([100.0] * 4)
        assert state_of(peer.protocol) is State.CLOSING

    def test_a_full_inbox_and_the_application_must_both_resume(self, connect: Callable[..., Any]) -> None:
        peer = connect(limits=Limits(max_queued=2))
        peer.sends(peer.text("a"), peer.text("b"))
        peer.protocol.pauseProducing()
        assert peer.transport.producerState == "paused"
        peer.protocol.receive()
        peer.protocol.receive()
        assert peer.transport.producerState == "paused"
        peer.protocol.resumeProducing()
        assert peer.transport.producerState == "producing"

    def test_a_closing_connection_reads_on_to_find_the_peers_close(self, connect: Callable[..., Any]) -> None:
        peer = connect(self.Texts)
        peer.protocol.pauseProducing()
        peer.sends(peer.text("lost") + peer.close(4000))
        peer.protocol.close()
        assert peer.protocol.close_reason.clean and peer.protocol.heard == []

    def test_a_stopped_connection_closes_with_1001(self, connect: Callable[..., Any]) -> None:
        peer = connect(self.Texts)
        peer.protocol.stopProducing()
        assert peer.reads() == b"\x88\x02\x03\xe9"
