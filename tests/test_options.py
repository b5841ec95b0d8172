"""Invalid options are refused by their constructors."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta
from math import nan
from typing import Any

import pytest

from twisted_beastws import Deflate, Limits, Timeouts

NUMBERS = [
    (kind, field.name)
    for kind in (Timeouts, Limits, Deflate)
    for field in fields(kind)
    if field.type not in ("bool", "str") and field.name != "slow_reader"
]
WITHOUT_NONE = {
    *("max_head_size", "max_head_lines", "high_water", "low_water", "max_buffered", "max_queued", "max_queued_size"),
    *("server_max_window_bits", "client_max_window_bits", "level", "mem_level", "threshold"),
}


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
@pytest.mark.parametrize("number", ["5", timedelta(seconds=5), [5]])
def test_the_error_names_a_value_that_is_no_number(kind: Any, name: str, number: object) -> None:
    with pytest.raises(TypeError) as caught:
        kind(**{name: number})
    assert str(caught.value).startswith(f"{kind.__name__}({name}={number!r}): must be a number")


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
@pytest.mark.parametrize("number", [-1, nan])
def test_the_error_names_a_number_out_of_range(kind: Any, name: str, number: float) -> None:
    with pytest.raises(ValueError) as caught:
        kind(**{name: number})
    assert str(caught.value).startswith(f"{kind.__name__}({name}={number!r}): must be a number")


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_none_is_allowed_for_options_that_may_be_unlimited(kind: Any, name: str) -> None:
    if name not in WITHOUT_NONE:
        assert getattr(kind(**{name: None}), name) is None
        return
    with pytest.raises(TypeError) as caught:
        kind(**{name: None})
    assert str(caught.value).startswith(f"{kind.__name__}({name}=None): must be a number")
    assert "or None" not in str(caught.value)


class TestWholeNumbers:
    """Limits that take only whole numbers.

    The compiled codec and the HTTP parser take no fraction: it would fail every connection.
    """

    @pytest.mark.parametrize("name", ["max_message_size", "max_head_size", "max_messages_per_turn", "fragment_size"])
    def test_a_whole_number_may_be_given_as_float(self, name: str) -> None:
        options: dict[str, Any] = {name: 1e6}
        number = getattr(Limits(**options), name)
        assert (number, type(number)) == (10**6, int)

    @pytest.mark.parametrize("number", [0.5, 2500.5, float("inf")])
    def test_another_float_is_refused(self, number: float) -> None:
        with pytest.raises(TypeError) as caught:
            Limits(max_message_size=number)  # type: ignore[arg-type]
        assert str(caught.value) == f"Limits(max_message_size={number!r}): must be a whole number"

    def test_rates_and_seconds_may_be_fractions(self) -> None:
        limits = Limits(max_message_rate=0.5, max_byte_rate=1.5, max_handshakes=2.5, max_seconds_per_turn=0.001)
        assert (limits.max_message_rate, limits.max_handshakes, limits.max_seconds_per_turn) == (0.5, 2.5, 0.001)


class TestPings:
    """A silent peer gets a ping before the idle timeout closes its connection."""

    @pytest.mark.parametrize("interval", [9.9, None])
    def test_a_shorter_interval_or_none_is_accepted(self, interval: float | None) -> None:
        assert Timeouts(idle=10.0, ping_interval=interval).ping_interval == interval

    @pytest.mark.parametrize("interval", [10.0, 10.1])
    def test_an_interval_that_is_not_shorter_than_idle_is_refused(self, interval: float) -> None:
        with pytest.raises(ValueError) as caught:
            Timeouts(idle=10.0, ping_interval=interval)
        assert str(caught.value) == (
            f"Timeouts(idle=10, ping_interval={interval:g}): a peer that has nothing to say would be closed before it "
            "is pinged: give ping_interval=5, or None for no pings"
        )

    @pytest.mark.parametrize(("idle", "interval"), [(20.0, 10.0), (59.0, 29.5), (61.0, 30.0), (None, 30.0)])
    def test_the_default_interval_follows_a_short_idle_timeout(self, idle: float | None, interval: float) -> None:
        assert Timeouts(idle=idle).ping_interval == interval
        assert replace(Timeouts(), idle=idle).ping_interval == interval
        assert replace(Timeouts(idle=1.0), idle=idle).ping_interval == interval

    def test_a_given_interval_does_not_follow_the_idle_timeout(self) -> None:
        with pytest.raises(ValueError, match=r"Timeouts\(idle=20, ping_interval=30\)"):
            Timeouts(idle=20, ping_interval=30.0)
        assert Timeouts.suggested("server").ping_interval == 150.0


def test_the_error_for_a_bad_option_has_this_text() -> None:
    with pytest.raises(TypeError) as caught:
        Timeouts(handshake="5")  # type: ignore[arg-type]
    assert str(caught.value) == "Timeouts(handshake='5'): must be a number greater than 0, or None"
    with pytest.raises(ValueError) as too_high:
        Deflate(level=10)
    assert str(too_high.value) == "Deflate(level=10): must be a number, 0-9"


class TestTogether:
    """A connection can send back every message that it receives."""

    @pytest.mark.parametrize("size", [1, 1 << 20, (1 << 20) + 1, 16 << 20, 1 << 30])
    def test_the_other_limits_follow_the_message_size(self, size: int) -> None:
        limits = Limits(max_message_size=size)
        assert limits.max_buffered == max(4 << 20, 4 * size)
        assert limits.max_fragments == max(4096, -(-size // 256))
        assert limits.max_queued_size == max(1 << 20, size)
        # The Autobahn suite sends 4 MiB in frames of 64 bytes.
        assert size < 16 << 20 or limits.max_fragments >= (4 << 20) // 64

    def test_other_limits_are_raised_with_the_message_size(self) -> None:
        assert replace(Limits(), max_message_size=16 << 20) == Limits(max_message_size=16 << 20)
        assert replace(Limits(max_message_size=16 << 20), max_message_size=1 << 20) == Limits()

    def test_a_given_limit_is_kept(self) -> None:
        limits = Limits(max_message_size=16 << 20, max_buffered=17 << 20, max_fragments=100, max_queued_size=1)
        assert (limits.max_buffered, limits.max_fragments, limits.max_queued_size) == (17 << 20, 100, 1)
        assert replace(limits, max_message_size=1 << 20).max_buffered == 17 << 20

    @pytest.mark.parametrize(("buffered", "fits"), [(4999, False), (5000, True), (5001, True)])
    def test_a_write_buffer_must_hold_a_message(self, buffered: int, fits: bool) -> None:
        options: dict[str, Any] = {
            "max_message_size": 5000,
            "max_buffered": buffered,
            "high_water": 100,
            "low_water": 50,
        }
        if fits:
            assert Limits(**options).max_buffered == buffered
            return
        with pytest.raises(ValueError) as caught:
            Limits(**options)
        assert str(caught.value) == (
            "Limits(max_message_size=5000, max_buffered=4999): a message that is received could not be sent back: give "
            "max_buffered=5000 or more, or max_message_size=4999 or less"
        )

    @pytest.mark.parametrize(("fragments", "fits"), [(49, False), (50, True), (51, True), (None, True)])
    def test_a_peer_with_the_same_limits_must_take_our_fragments(self, fragments: int | None, fits: bool) -> None:
        options: dict[str, Any] = {"max_message_size": 5000, "fragment_size": 100, "max_fragments": fragments}
        if fits:
            assert Limits(**options).max_fragments == fragments
            return
        with pytest.raises(ValueError) as caught:
            Limits(**options)
        assert str(caught.value) == (
            "Limits(max_message_size=5000, fragment_size=100, max_fragments=49): a message of max_message_size is sent "
            "in 50 frames, and a peer with these limits refuses them: give max_fragments=50 or more, or a greater "
            "fragment_size"
        )

    def test_a_peer_with_default_limits_accepts_our_short_fragments(self) -> None:
        assert Limits(fragment_size=10).max_fragments == 104858

    def test_unlimited_messages_change_no_other_limit(self) -> None:
        limits = Limits(max_message_size=None, max_buffered=100, high_water=50, low_water=10)
        assert (limits.max_buffered, limits.max_fragments) == (100, 4096)
