"""Text from clients, made safe for a log."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from twisted_beastws.server.log_text import MAX_SHOWN, host_of, quoted


@given(st.text() | st.binary())
def test_a_quotation_is_one_line_of_printable_ascii(text: str | bytes) -> None:
    shown = quoted(text)
    assert shown.isascii() and shown.isprintable() and len(shown) <= 10 * MAX_SHOWN + 5


@pytest.mark.parametrize(
    ("length", "shown"), [(99, f"'{'x' * 99}'"), (100, f"'{'x' * 100}'"), (101, f"'{'x' * 100}'...")]
)
def test_a_quotation_is_cut(length: int, shown: str) -> None:
    assert quoted("x" * length) == shown


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (IPv4Address("TCP", "192.0.2.1", 1), "192.0.2.1"),
        (IPv6Address("TCP", "2001:db8::1", 1), "2001:db8::1"),
        (UNIXAddress(None), "UNIXAddress(None)"),
        (None, "None"),
        (IPv4Address("TCP", "1\n2\x1b[2J", 1), r"'1\n2\x1b[2J'"),
        (IPv4Address("TCP", "\u0661\u0662", 1), r"'\u0661\u0662'"),
        (IPv4Address("TCP", "x" * 101, 1), f"'{'x' * 100}'..."),
    ],
)
def test_a_host_is_shown(address: Any, shown: str) -> None:
    assert host_of(address) == shown
