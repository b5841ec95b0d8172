"""Tests of `twisted_beastws.inbox`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_beastws.inbox import Inbox
from twisted_beastws.options import Limits


class Log(list[str]):
    """What an inbox asked for."""

    def pause(self) -> None:
        self.append("pause")

    def resume(self) -> None:
        self.append("resume")


def make(**limits: int) -> tuple[Inbox, Log]:
    log = Log()
    return Inbox(Limits(**limits), log.pause, log.resume), log


def test_keeps_the_order():
    inbox, _ = make()
    for message in ("a", b"b", "", b"", "c"):
        inbox.put(message)
    assert len(inbox) == 5
    assert [inbox.take() for _ in range(5)] == ["a", b"b", "", b"", "c"]
    assert not inbox


@pytest.mark.parametrize(("count", "asked"), [(15, []), (16, ["pause"]), (17, ["pause"])])
def test_pauses_at_so_many_messages(count, asked):
    inbox, log = make()
    for _ in range(count):
        inbox.put("")
    assert log == asked


@pytest.mark.parametrize(("size", "asked"), [(999, []), (1000, ["pause"]), (1001, ["pause"])])
def test_pauses_at_so_many_octets(size, asked):
    inbox, log = make(max_queued_size=1000)
    inbox.put(bytes(500))
    inbox.put(bytes(size - 500))
    assert log == asked


def test_octets_of_text_are_counted_not_characters():
    inbox, log = make(max_queued_size=1000)
    inbox.put("\N{GRINNING FACE}" * 249)
    assert log == []
    inbox.put("\N{GRINNING FACE}")
    assert log == ["pause"]
    inbox.take()
    assert log == ["pause", "resume"]


def test_resumes_at_a_quarter():
    inbox, log = make(max_queued=16, max_queued_size=1000)
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


def test_resumes_when_both_are_at_a_quarter():
    inbox, log = make(max_queued=16, max_queued_size=1000)
    inbox.put(bytes(749))
    inbox.put(bytes(251))
    assert log == ["pause"]
    inbox.take()
    assert log == ["pause"]
    inbox.take()
    assert log == ["pause", "resume"]


def test_one_message_above_the_limit_is_taken_all_the_same():
    inbox, log = make(max_queued=1, max_queued_size=10)
    inbox.put(bytes(100))
    assert log == ["pause"]
    assert inbox.take() == bytes(100)
    assert log == ["pause", "resume"]


def test_detached_asks_nobody():
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
def test_is_a_queue_that_pauses_and_resumes_in_turn(steps):
    """None takes; anything else is put."""
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
