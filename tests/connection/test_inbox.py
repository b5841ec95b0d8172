"""Tests of `twisted_beastws.connection.inbox`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_beastws.connection.inbox import SLOT, Inbox, cost_of
from twisted_beastws.options import Limits


class Log(list[str]):
    """Records the calls of an inbox to pause and resume reading."""

    def pause(self) -> None:
        self.append("pause")

    def resume(self) -> None:
        self.append("resume")


def make(**limits: Any) -> tuple[Inbox, Log]:
    log = Log()
    return Inbox(Limits(**limits), log.pause, log.resume), log


def test_the_inbox_keeps_the_order() -> None:
    inbox, _ = make()
    for message in ("a", b"b", "", b"", "c"):
        inbox.put(message)
    assert len(inbox) == 5
    assert [inbox.take() for _ in range(5)] == ["a", b"b", "", b"", "c"]
    assert not inbox


@pytest.mark.parametrize(("count", "asked"), [(15, []), (16, ["pause"]), (17, ["pause"])])
def test_the_inbox_pauses_at_its_number_of_messages(count: int, asked: list[Any] | list[str]) -> None:
    inbox, log = make()
    for _ in range(count):
        inbox.put("")
    assert log == asked


@pytest.mark.parametrize(("size", "asked"), [(999, []), (1000, ["pause"]), (1001, ["pause"])])
@pytest.mark.parametrize("kind", [str, bytes])
def test_the_inbox_pauses_at_its_bytes_of_memory(kind: type[Any], size: int, asked: list[Any] | list[str]) -> None:
    """The size of a message includes its Python object and its place in the queue."""
    inbox, log = make(max_queued_size=1000)
    empty = cost_of(kind())
    content = "x" if kind is str else b"x"
    inbox.put(content * 300)
    inbox.put(content * (size - 300 - 2 * empty))
    assert inbox.size == size
    assert log == asked


@pytest.mark.parametrize(
    ("character", "width"), [("x", 1), ("\xe9", 1), ("\N{EURO SIGN}", 2), ("\N{GRINNING FACE}", 4)]
)
def test_a_text_counts_as_the_memory_of_its_characters(character: str, width: int) -> None:
    """If a text contains one emoji, Python stores each of its characters in four bytes."""
    inbox, log = make(max_queued_size=1 << 20)
    inbox.put("x" * 100_000 + character)
    assert 100_000 * width < inbox.size < 100_000 * width + 300
    inbox.put("x" * ((1 << 20) - 100_500 * width))
    assert log == []
    inbox.put("x" * 500 * width)
    assert log == ["pause"]


def test_empty_messages_are_bounded_by_their_memory() -> None:
    inbox, log = make(max_queued=1 << 20, max_queued_size=1 << 16)
    count = 0
    while not log:
        inbox.put("")
        count += 1
    assert count <= (1 << 16) // SLOT


def test_a_cleared_inbox_is_empty() -> None:
    inbox, _ = make()
    inbox.put("a")
    inbox.clear()
    assert (len(inbox), inbox.size) == (0, 0)


def test_the_inbox_resumes_at_a_quarter() -> None:
    inbox, log = make(max_queued=16, max_queued_size=4000)
    for _ in range(16):
        inbox.put(bytes(10))
    for _ in range(11):
        inbox.take()
    assert log == ["pause"]
    inbox.take()
    assert log == ["pause", "resume"]
    for _ in range(12):
        inbox.put(bytes(10))
    assert log == ["pause", "resume", "pause"]


def test_the_inbox_resumes_if_both_limits_are_at_a_quarter() -> None:
    inbox, log = make(max_queued=16, max_queued_size=1000)
    empty = cost_of(b"")
    inbox.put(bytes(749 - empty))
    inbox.put(bytes(251 - empty))
    assert log == ["pause"]
    inbox.take()
    assert log == ["pause"]
    inbox.take()
    assert log == ["pause", "resume"]


def test_one_message_above_the_limit_is_accepted() -> None:
    inbox, log = make(max_queued=1, max_queued_size=10)
    inbox.put(bytes(100))
    assert log == ["pause"]
    assert inbox.take() == bytes(100)
    assert log == ["pause", "resume"]


def test_a_detached_inbox_asks_for_no_pause() -> None:
    inbox, log = make(max_queued=2)
    inbox.put("a")
    inbox.put("b")
    inbox.detach()
    inbox.take()
    inbox.take()
    inbox.put("c")
    inbox.put("d")
    assert log == ["pause"]


@given(st.lists(st.one_of(st.binary(max_size=50), st.text(max_size=20), st.none()), max_size=200))
def test_the_inbox_is_a_queue_that_pauses_and_resumes_in_turn(
    steps: list[Any] | list[None] | list[bytes] | list[str],
) -> None:
    """None takes a message out of the inbox; any other step puts one in."""
    inbox, log = make(max_queued=8, max_queued_size=200)
    model: list[str | bytes] = []
    for step in steps:
        if step is not None:
            inbox.put(step)
            model.append(step)
        elif model:
            assert inbox.take() == model.pop(0)
        assert len(inbox) == len(model)
        assert log == ["pause", "resume"] * (len(log) // 2) + ["pause"] * (len(log) % 2)
        if not model:
            assert len(log) % 2 == 0
        if len(model) >= 8:
            assert len(log) % 2 == 1
