"""Tests of `twisted_beastws.wire.direct`: the ways past a write buffer, on real sockets."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from twisted_beastws import Prepared, prepare
from twisted_beastws.wire import direct, writer
from twisted_beastws.wire.frames import GATHER_LIMIT

from . import peer

Pair = tuple[socket.socket, socket.socket]
MESSAGE = prepare("hello")
FRAME = b"\x81\x05hello"


class Transport:
    """A transport on which TLS may be started."""

    TLS = False


class Sink:
    """A write buffer with a way past it."""

    free = True

    def __init__(self, at_once: Callable[[bytes], int] | None) -> None:
        self.at_once = at_once
        self.rests: list[tuple[bytes, int]] = []
        self.react: Callable[[], object] = lambda: None

    def write_rest(self, frame: bytes, gone: int) -> None:
        self.rests.append((frame, gone))
        self.react()


class Connection:
    """An open connection that sends to a socket of a pair."""

    def __init__(self, module: Any, kind: type[writer.FrameWriter], pair: Pair, server: bool = True) -> None:
        self.socket, self.peer = pair
        self.transport = Transport()
        self.sink = Sink(module.clear_send(self.transport, self.socket))
        self.writer = kind(server, self.sink)  # type: ignore[arg-type]
        self.send: Callable[..., object] = self.writer.send

    @property
    def received(self) -> bytes:
        try:
            return self.peer.recv(1 << 20)
        except BlockingIOError:
            return b""

    def fill(self) -> None:
        """Fill the socket until it takes nothing."""
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    self.socket.send(bytes(size))
            except BlockingIOError:
                pass


@pytest.fixture
def pairs() -> Iterator[Callable[[], Pair]]:
    with ExitStack() as stack:

        def pair() -> Pair:
            ends = socket.socketpair()
            for end in ends:
                stack.callback(end.close)
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 12)
            return ends

        yield pair


def compiled() -> tuple[Any, Any]:
    """Return the two compiled modules, or skip the test."""
    peer.compiled_codec()
    # The codec is chosen as a whole: no public name gives these functions alone.
    from twisted_beastws.wire import _broadcast, _direct

    return _broadcast, _direct


@pytest.fixture(params=["compiled", "pure"])
def module(request: pytest.FixtureRequest) -> Any:
    return direct if request.param == "pure" else compiled()[1]


class TestClearSend:
    """`clear_send` and `leave_by`, which both codecs have."""

    def test_the_bytes_leave(self, module: Any, pairs: Callable[[], Pair]) -> None:
        ours, theirs = pairs()
        send = module.clear_send(Transport(), ours)
        assert (send(b"abc"), module.leave_by(send, b"def"), theirs.recv(99)) == (3, 3, b"abcdef")

    def test_no_byte_leaves_once_tls_was_started(self, module: Any, pairs: Callable[[], Pair]) -> None:
        ours, theirs = pairs()
        transport = Transport()
        send = module.clear_send(transport, ours)
        transport.TLS = True
        assert (send(b"abc"), module.leave_by(send, b"def")) == (0, 0)
        with pytest.raises(BlockingIOError):
            theirs.recv(99)

    @pytest.mark.parametrize("end", ["full", "closed", "broken"])
    def test_a_socket_that_takes_nothing_took_no_bytes(self, module: Any, pairs: Callable[[], Pair], end: str) -> None:
        connection = Connection(module, writer.FrameWriter, pairs())
        if end == "full":
            connection.fill()
        else:
            (connection.socket if end == "closed" else connection.peer).close()
        assert connection.sink.at_once is not None
        assert module.leave_by(connection.sink.at_once, b"abc") == 0
        with pytest.raises(OSError):
            connection.sink.at_once(b"abc")

    def test_a_part_may_leave(self, module: Any, pairs: Callable[[], Pair]) -> None:
        ours, theirs = pairs()
        gone = module.leave_by(module.clear_send(Transport(), ours), bytes(1 << 24))
        assert 0 < gone < 1 << 24
        received = 0
        while received < gone:
            received += len(theirs.recv(1 << 20))

    def test_a_socket_that_sends_in_its_own_way_is_asked(self, module: Any, pairs: Callable[[], Pair]) -> None:
        class Own(socket.socket):
            def send(self, data: Any, flags: int = 0) -> int:
                return super().send(b"own: " + data) - 5

        ours, theirs = pairs()
        with Own(fileno=ours.detach()) as own:
            assert (module.leave_by(module.clear_send(Transport(), own), b"abc"), theirs.recv(99)) == (3, b"own: abc")

    def test_other_errors_are_raised(self, module: Any) -> None:
        def fail(data: bytes) -> int:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            module.leave_by(fail, b"abc")


class TestSendAtOnce:
    """The compiled `send_at_once`: it sends a frame to the connections that can take it whole, and names the others."""

    @pytest.fixture
    def connections(self, pairs: Callable[[], Pair]) -> Callable[[int], list[Connection]]:
        made = compiled()[1]
        kind = peer.compiled_codec().writer
        return lambda count: [Connection(made, kind, pairs()) for _ in range(count)]

    @staticmethod
    def send(
        connections: list[Any], message: Prepared = MESSAGE, failed: Callable[[Any], object] = pytest.fail
    ) -> list[int]:
        return list(compiled()[0].send_at_once(connections, message.plain.payload, message.plain.frame, failed))

    def test_the_pure_codec_leaves_all_to_the_usual_way(self) -> None:
        assert list(direct.send_at_once([1, 2], b"", b"", pytest.fail)) == [0, 1]

    @pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 65])
    def test_each_connection_gets_the_frame_once(
        self, connections: Callable[[int], list[Connection]], count: int
    ) -> None:
        receivers = connections(count)
        assert self.send(receivers) == []
        assert [receiver.received for receiver in receivers] == [FRAME] * count

    @pytest.mark.parametrize("state", ["TLS", "closed", "full", "corked", "streaming", "closing", "busy", "sends"])
    def test_a_connection_that_cannot_take_it_is_named_and_the_others_get_it(
        self, connections: Callable[[int], list[Connection]], state: str
    ) -> None:
        receivers = connections(3)
        other = receivers[1]
        if state == "TLS":
            other.transport.TLS = True
        elif state == "closed":
            other.socket.close()
        elif state == "full":
            other.fill()
        elif state == "corked":
            other.writer.cork()
        elif state == "streaming":
            other.writer.hold()
        elif state == "closing":
            other.writer.close()
        elif state == "busy":
            other.sink.at_once = None
        else:
            other.send = lambda message: None
        assert self.send(receivers) == [1]
        assert [receivers[0].received, receivers[2].received] == [FRAME] * 2
        assert FRAME not in other.received and other.sink.rests == []

    def test_a_client_masks_its_own_frame(self, pairs: Callable[[], Pair]) -> None:
        client = Connection(compiled()[1], peer.compiled_codec().writer, pairs(), server=False)
        assert self.send([client]) == [0] and client.received == b""

    @pytest.mark.parametrize(("fragment_size", "others"), [(4, [0]), (5, []), (6, [])])
    def test_a_message_beyond_fragment_size_is_left_to_the_usual_way(
        self, connections: Callable[[int], list[Connection]], fragment_size: int, others: list[int]
    ) -> None:
        receivers = connections(1)
        receivers[0].writer.fragment_size = fragment_size
        assert self.send(receivers) == others

    @pytest.mark.parametrize(("size", "others"), [(GATHER_LIMIT - 1, []), (GATHER_LIMIT, [0]), (GATHER_LIMIT + 1, [0])])
    def test_a_long_frame_is_left_to_the_usual_way(
        self, connections: Callable[[int], list[Connection]], size: int, others: list[int]
    ) -> None:
        receivers = connections(1)
        receivers[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        message = prepare(bytes(size - 4))
        assert len(message.plain.frame) == size
        assert self.send(receivers, message) == others

    @staticmethod
    def too_long_for_the_first(receivers: list[Connection]) -> Prepared:
        for receiver in receivers[1:]:
            receiver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        return prepare(bytes(60_000))

    def test_the_rest_of_a_frame_goes_to_the_write_buffer_before_any_other(
        self, connections: Callable[[int], list[Connection]]
    ) -> None:
        receivers = connections(3)
        message = self.too_long_for_the_first(receivers)
        # What the write buffer does can change the other connections.
        receivers[0].sink.react = receivers[1].writer.close
        assert self.send(receivers, message) == [1]
        ((rest, gone),) = receivers[0].sink.rests
        assert rest == message.plain.frame and 0 < gone < len(rest)
        assert (receivers[1].received, receivers[2].received) == (b"", rest)

    def test_a_write_buffer_that_fails_does_not_stop_the_others(
        self, connections: Callable[[int], list[Connection]]
    ) -> None:
        receivers = connections(3)
        message = self.too_long_for_the_first(receivers)
        receivers[0].sink.react = lambda: 1 // 0
        failed: list[Any] = []
        assert self.send(receivers, message, failed.append) == []
        assert failed == receivers[:1] and receivers[2].received == message.plain.frame
