"""Options that cannot be are refused where they are made."""

from __future__ import annotations

from dataclasses import fields
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
def test_what_is_no_number_is_named(kind: Any, name: str, number: object) -> None:
    with pytest.raises(TypeError) as caught:
        kind(**{name: number})
    assert str(caught.value).startswith(f"{kind.__name__}({name}={number!r}): must be a number")


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
@pytest.mark.parametrize("number", [-1, nan])
def test_so_is_a_number_that_cannot_be(kind: Any, name: str, number: float) -> None:
    with pytest.raises(ValueError) as caught:
        kind(**{name: number})
    assert str(caught.value).startswith(f"{kind.__name__}({name}={number!r}): must be a number")


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_none_is_for_what_may_be_without_end(kind: Any, name: str) -> None:
    if name not in WITHOUT_NONE:
        assert getattr(kind(**{name: None}), name) is None
        return
    with pytest.raises(TypeError) as caught:
        kind(**{name: None})
    assert str(caught.value).startswith(f"{kind.__name__}({name}=None): must be a number")
    assert "or None" not in str(caught.value)


class TestPings:
    """A peer that has nothing to say is pinged before it is judged silent."""

    @pytest.mark.parametrize("interval", [9.9, None])
    def test_a_shorter_interval_or_none_is_taken(self, interval: float | None) -> None:
        assert Timeouts(idle=10.0, ping_interval=interval).ping_interval == interval

    @pytest.mark.parametrize("interval", [10.0, 10.1])
    def test_an_interval_that_is_not_shorter_than_idle_is_refused(self, interval: float) -> None:
        with pytest.raises(ValueError) as caught:
            Timeouts(idle=10.0, ping_interval=interval)
        assert str(caught.value) == (
            f"Timeouts(idle=10, ping_interval={interval:g}): a peer that has nothing to say would be closed before it "
            "is pinged: give ping_interval=5, or None for no pings"
        )

    def test_the_default_interval_is_judged_as_well(self) -> None:
        with pytest.raises(ValueError, match=r"Timeouts\(idle=20, ping_interval=30\)"):
            Timeouts(idle=20)
        assert Timeouts(idle=None).ping_interval == 30.0
        assert Timeouts.suggested("server").ping_interval == 150.0


def test_the_words() -> None:
    with pytest.raises(TypeError) as caught:
        Timeouts(handshake="5")  # type: ignore[arg-type]
    assert str(caught.value) == "Timeouts(handshake='5'): must be a number greater than 0, or None"
    with pytest.raises(ValueError) as too_high:
        Deflate(level=10)
    assert str(too_high.value) == "Deflate(level=10): must be a number, 0-9"
