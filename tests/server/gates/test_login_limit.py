"""How often a peer may give a wrong password."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_beastws.server.gates.login_limit import LoginLimit, TooManyFailures
from twisted_beastws.server.peers import LOCAL, UNKNOWN, Peer, peer_of

ANN = peer_of("192.0.2.1")


class Peers:
    """Peers that log in, rightly or not, three times a minute."""

    def __init__(self, clock: Clock, per_minute: float | None = 3) -> None:
        self.limit = LoginLimit(per_minute, clock.seconds)
        self.checks: list[Deferred[str | None]] = []

    def begin(self, peer: Peer = ANN) -> list[Any]:
        """Begin a check that ends when `checks` do; return its result."""

        def check() -> Awaitable[str | None]:
            self.checks.append(Deferred())
            return self.checks[-1]

        results: list[Any] = []
        Deferred.fromCoroutine(self.limit.check(peer, check)).addBoth(results.append)
        return results

    def tries(self, user: str | None, peer: Peer = ANN) -> str | int | None:
        """The user, None, or the seconds to wait."""
        results: list[Any] = []
        Deferred.fromCoroutine(self.limit.check(peer, lambda: succeed(user))).addBoth(results.append)
        (result,) = results
        if isinstance(result, Failure):
            assert isinstance(result.value, TooManyFailures)
            return result.value.retry_after
        return result  # type: ignore[no-any-return]


@pytest.fixture
def peers(clock: Clock) -> Peers:
    return Peers(clock)


@pytest.mark.parametrize(("failures", "then"), [(2, "ann"), (3, 20), (4, 20)])
def test_the_failures_in_a_minute_are_limited(peers: Peers, failures: int, then: Any) -> None:
    for _ in range(failures):
        peers.tries(None)
    assert peers.tries("ann") == then
    assert peers.tries("bob", peer_of("192.0.2.2")) == "bob"


def test_the_time_to_wait_is_exact(peers: Peers, clock: Clock) -> None:
    for _ in range(3):
        assert peers.tries(None) is None
    assert peers.limit.retry_after(ANN) == 20
    clock.advance(19)
    assert peers.tries("ann") == 1
    clock.advance(1)
    assert peers.limit.retry_after(ANN) == 0
    assert peers.tries("ann") == "ann"


def test_successes_do_not_count(peers: Peers) -> None:
    assert [peers.tries("ann") for _ in range(100)] == ["ann"] * 100
    assert [peers.tries(None) for _ in range(4)] == [None, None, None, 20]


def test_an_ipv6_site_may_fail_four_times_as_often(peers: Peers) -> None:
    hosts = [f"2001:db8:0:{number}::1" for number in range(13)]
    assert [peers.tries(None, peer_of(host)) for host in hosts] == [None] * 12 + [5]
    assert peers.tries("ann", peer_of("2001:db8:1::1")) == "ann"


def test_a_peer_without_address_is_not_limited(clock: Clock) -> None:
    assert [Peers(clock, None).tries(None) for _ in range(9)] == [None] * 9
    peers = Peers(clock)
    assert [peers.tries(None, UNKNOWN) for _ in range(9)] == [None] * 9
    assert [peers.tries(None, LOCAL) for _ in range(4)] == [None, None, None, 20]


def test_no_more_passwords_are_checked_at_once_than_one_after_the_other(peers: Peers) -> None:
    results = [peers.begin() for _ in range(1000)]
    assert len(peers.checks) == 3
    for check in peers.checks:
        check.callback(None)
    assert len(peers.checks) == 3
    assert results[:3] == [[None]] * 3
    assert all(failure.type is TooManyFailures for (failure,) in results[3:])


def test_right_passwords_are_accepted_one_after_another(peers: Peers) -> None:
    results = [peers.begin() for _ in range(1000)]
    for number in range(1000):
        peers.checks[number].callback(f"user {number}")
    assert sorted(results) == sorted([[f"user {number}"] for number in range(1000)])


def test_the_waiting_checks_of_a_site_are_limited(peers: Peers) -> None:
    results = [peers.begin(peer_of(f"2001:db8:0:{number}::1")) for number in range(13)]
    assert len(peers.checks) == 12
    peers.checks[0].callback("ann")
    assert len(peers.checks) == 13
    assert results[0] == ["ann"]


def test_a_check_whose_client_left_counts_as_a_guess(peers: Peers) -> None:
    results: list[Any] = []
    for _ in range(3):
        Deferred.fromCoroutine(peers.limit.check(ANN, Deferred)).addErrback(results.append).cancel()
    assert [failure.type for failure in results] == [CancelledError] * 3
    assert peers.tries("ann") == 20


def test_a_client_that_leaves_while_it_waits_does_not_stop_the_others(peers: Peers) -> None:
    for _ in range(3):
        peers.begin()
    left: list[Any] = []
    waiting = Deferred.fromCoroutine(peers.limit.check(ANN, lambda: succeed("left"))).addErrback(left.append)
    result = peers.begin()
    waiting.cancel()
    assert left[0].type is CancelledError
    peers.checks[0].callback("first")
    peers.checks[3].callback("last")
    assert result == ["last"]


def test_an_error_of_the_checker_does_not_count_for_the_peer(peers: Peers) -> None:
    def broken() -> Any:
        raise ZeroDivisionError

    for _ in range(9):
        failures: list[Any] = []
        Deferred.fromCoroutine(peers.limit.check(ANN, broken)).addErrback(failures.append)
        assert failures[0].type is ZeroDivisionError
    assert peers.tries("ann") == "ann"
