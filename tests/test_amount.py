"""Tests of `twisted_beastws.amount`."""

from __future__ import annotations

import pytest

from twisted_beastws.amount import read_amount


@pytest.mark.parametrize(("text", "amount"), [("0", 0.0), ("5", 5.0), ("0.5", 0.5), ("1e3", 1000.0)])
def test_an_amount_is_read_as_a_number(text: str, amount: float) -> None:
    assert read_amount(text, "give some") == amount


@pytest.mark.parametrize("text", ["", "some", "-1", "-0.5", "nan", "inf", "-inf", "1e999", "5 s"])
def test_anything_else_says_what_to_give(text: str) -> None:
    with pytest.raises(ValueError, match=r"^give some$"):
        read_amount(text, "give some")
