"""From the history to the present: whatever the order in which things come, each message is given once, in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed

from twisted_beastws.hub.backplane import History, Message, order_of
from twisted_beastws.hub.catching_up import MAX_HELD, CatchUp

from .stubs import outcome


def message(number: int) -> Message:
    return Message("a", str(number), f"{number}-0")


class Room:
    """A history of which the test says when it is asked and when it answers."""

    def __init__(self, part: int = 3, published: int = 0) -> None:
        self.part = part
        self.stream = [message(number + 1) for number in range(published)]
        self.given: list[str | bytes] = []
        self.asked: list[tuple[Deferred[History], History]] = []
        self.catch_up = CatchUp("0-0", self.fetch, lambda each: self.given.append(each.data), lambda: succeed(None))
        self.running = Deferred.fromCoroutine(self.catch_up.run())

    def fetch(self, after: str) -> Deferred[History]:
        later = [each for each in self.stream if order_of(each.id or "") > order_of(after)]
        found = History(later[: self.part], True, len(later) > self.part)
        self.asked.append((Deferred(), found))
        return self.asked[-1][0]

    def publish(self) -> Message:
        self.stream.append(message(len(self.stream) + 1))
        return self.stream[-1]

    def answer(self) -> None:
        answer, found = self.asked.pop(0)
        answer.callback(found)


def test_messages_that_arrive_meanwhile_are_delivered_after_the_history() -> None:
    room = Room()
    for _ in range(2):
        room.catch_up.offer(room.publish())
    room.answer()
    assert room.given == ["1", "2"]
    assert outcome(room.running) is True


def test_messages_of_the_history_are_not_delivered_again() -> None:
    room = Room(published=1)
    room.answer()
    room.catch_up.offer(room.stream[0])
    assert room.given == ["1"]
    assert not room.catch_up.done
    room.catch_up.offer(room.publish())
    assert room.given == ["1", "2"]
    assert room.catch_up.done


@given(st.lists(st.sampled_from(["publish", "come", "answer"]), max_size=60), st.integers(1, 4))
def test_each_message_is_delivered_once_and_in_order(steps: list[str], part: int) -> None:
    room = Room(part)
    came = 0
    # Everything that is published comes, if late, and everything that is asked is answered.
    for step in [*steps, *["answer", "come"] * 100]:
        if step == "publish":
            room.publish()
        elif step == "come" and came < len(room.stream):
            room.catch_up.offer(room.stream[came])
            came += 1
        elif step == "answer" and room.asked:
            room.answer()
    assert room.given == [each.data for each in room.stream]


def test_messages_without_id_are_delivered_after_the_history_too() -> None:
    room = Room(published=1)
    room.catch_up.offer(Message("a", "notice"))
    room.answer()
    room.catch_up.offer(Message("a", "another"))
    assert room.given == ["1", "notice", "another"]
    assert not room.catch_up.done


def test_held_messages_above_the_limit_are_read_from_the_history() -> None:
    room = Room(part=1000)
    for number in range(MAX_HELD + 1):
        room.catch_up.offer(room.publish())
        # No public name shows how many messages are held.
        assert len(room.catch_up._held) <= MAX_HELD, number
    while room.asked:
        room.answer()
    assert room.given == [each.data for each in room.stream]
    assert len(room.given) == MAX_HELD + 1


def test_a_failed_history_ends_the_catching_up_and_held_messages_are_delivered() -> None:
    given: list[str | bytes] = []
    asked: list[Deferred[History]] = [Deferred()]
    catch_up = CatchUp("0-0", lambda after: asked[0], lambda each: given.append(each.data), lambda: succeed(None))
    running = Deferred.fromCoroutine(catch_up.run())
    catch_up.offer(message(7))
    asked[0].errback(RuntimeError("away"))
    assert outcome(running) is False
    assert given == ["7"]


def test_a_reader_that_left_ends_the_catching_up() -> None:
    given: list[str | bytes] = []
    catch_up = CatchUp(
        "0-0",
        lambda after: succeed(History([message(1)], True, True)),
        lambda each: given.append(each.data),
        lambda: fail(RuntimeError("gone")),
    )
    assert outcome(Deferred.fromCoroutine(catch_up.run())) is False
    assert given == ["1"]
