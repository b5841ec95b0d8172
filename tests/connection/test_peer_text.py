"""Tests of `twisted_beastws.connection.peer_text`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from twisted_beastws.connection.peer_text import MAX_SHOWN, peer_text


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (IPv4Address("TCP", "192.0.2.1", 50000), "192.0.2.1:50000"),
        (IPv6Address("TCP", "2001:db8::1", 50000), "[2001:db8::1]:50000"),
        (UNIXAddress("/run/socket"), "UNIXAddress('/run/socket')"),
        (IPv4Address("TCP", "a\nb\x1b", 1), r"a\nb\x1b:1"),
        (None, "a peer without an address"),
    ],
)
def test_a_log_line_shows_the_address_of_a_peer(address: Any, text: str) -> None:
    assert peer_text(address) == text


@pytest.mark.parametrize("length", [MAX_SHOWN - 3, MAX_SHOWN - 2, MAX_SHOWN - 1])
def test_a_log_line_shows_a_bounded_part_of_the_address(length: int) -> None:
    shown = peer_text(IPv4Address("TCP", "h" * length, 1))
    assert shown == ("h" * length + ":1")[:MAX_SHOWN]
