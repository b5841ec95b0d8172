"""Tests of `twisted_beastws.hub.linked_reconnecting`: a link whose connections are the test's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from twisted_beastws.hub import linked_reconnecting
from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.hub.linked_errors import LinkLost, Refused, Remedy, Trouble
from twisted_beastws.hub.linked_reconnecting import Reconnecting

LOADING = Refused("loading", Trouble(BackplaneState.LOADING, Remedy.RECONNECT, "it is starting", "it is starting"))


WAIT = 3.0
"""Seconds before a link opens again."""


class Connection:
    def __init__(self) -> None:
        self.gone: Deferred[BaseException] = Deferred()
        self.ended: BaseException | None = None

    def drop(self, why: BaseException | None = None) -> None:
        if self.ended is None:
            self.ended = why or LinkLost("dropped")
            self.gone.callback(self.ended)


class Backplane:
    """Keeps what a link reports."""

    def __init__(self) -> None:
        self.ends: list[BaseException] = []
        self.troubles: list[Trouble | None] = []

    def linked(self) -> Deferred[None]:
        return succeed(None)

    def lost(self, why: BaseException) -> None:
        self.ends.append(why)

    def beat(self, trouble: Trouble | None, verified: object, lease_expired: bool) -> None:
        self.troubles.append(trouble)


class Link(Reconnecting):
    refuses = False
    connection: Connection

    async def _open(self) -> None:
        self.connection = Connection()
        self._connections.append(self.connection)

    async def _give_sign(self) -> None:
        if self.refuses:
            raise LOADING
        self._user.beat(None, None, False)

    def _take_leave(self) -> Deferred[object]:
        return succeed(None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backplane() -> Any:
    return Backplane()


@pytest.fixture
def link(backplane: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    monkeypatch.setattr(linked_reconnecting, "backoff", lambda failures: WAIT)
    link = Link(backplane, clock)
    link.start()
    yield link
    link.stop()
    assert clock.getDelayedCalls() == []


def test_a_command_that_failed_with_its_connection_gives_the_reason_of_the_connection(
    link: Link, backplane: Any, clock: Clock
) -> None:
    def linked() -> Deferred[None]:
        link.connection.drop(LOADING)
        return fail(LinkLost("the connection was lost"))

    backplane.linked = linked
    link.restart(LinkLost("the first connection ends"))
    clock.advance(WAIT)
    assert backplane.ends[1:] == [LOADING]


def test_a_lost_link_opens_again_after_its_wait(link: Link, backplane: Any, clock: Clock) -> None:
    link.restart(LOADING)
    assert (backplane.ends, link.connection.ended) == ([LOADING], LOADING)
    clock.advance(WAIT)
    assert link.connection.ended is None


def test_a_refused_sign_of_life_is_followed_by_one_probe_at_a_time(link: Link, backplane: Any, clock: Clock) -> None:
    link.refuses = True
    clock.advance(linked_reconnecting.BEAT)
    clock.advance(linked_reconnecting.PROBE)
    assert backplane.troubles == [None, LOADING.trouble, LOADING.trouble]
    link.refuses = False
    clock.advance(linked_reconnecting.PROBE)
    clock.advance(linked_reconnecting.PROBE)
    assert backplane.troubles == [None, LOADING.trouble, LOADING.trouble, None]


def test_no_probe_follows_the_end_of_the_connections(link: Link, backplane: Any, clock: Clock) -> None:
    link.refuses = True
    clock.advance(linked_reconnecting.BEAT)
    link.restart(LinkLost("the connection ends"))
    clock.advance(linked_reconnecting.PROBE)
    assert backplane.troubles == [None, LOADING.trouble]
