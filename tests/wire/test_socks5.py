"""Tests of `twisted_beastws.wire.socks5`."""

from __future__ import annotations

import pytest

from twisted_beastws.errors import SocksDeclined
from twisted_beastws.wire.socks5 import Socks5

CONNECTED = b"\x05\x00\x00\x01\x7f\0\0\1\x04\x38"


def told(socks: Socks5, data: bytes, size: int = 1) -> bytes:
    return b"".join(socks.feed(data[at : at + size]) for at in range(0, len(data), size))


class TestConnect:
    """RFC 1928 §3, §4 and §6: the greeting, the request, and the reply that grants it."""

    @pytest.mark.parametrize(
        ("host", "address"),
        [
            ("example.com", b"\x03\x0bexample.com"),
            ("127.0.0.1", b"\x01\x7f\0\0\1"),
            ("::1", b"\x04" + bytes(15) + b"\1"),
            ("x" * 255, b"\x03\xff" + b"x" * 255),
        ],
    )
    @pytest.mark.parametrize("size", [1, 3, 1000])
    def test_the_request_has_these_bytes(self, host: str, address: bytes, size: int) -> None:
        socks = Socks5(host, 443)
        assert socks.greeting() == b"\x05\x01\x00"
        assert told(socks, b"\x05\x00", size) == b"\x05\x01\x00" + address + b"\x01\xbb"
        assert not socks.done
        assert told(socks, CONNECTED, size) == b""
        assert socks.done

    @pytest.mark.parametrize("bound", [b"\x01" + bytes(4), b"\x04" + bytes(16), b"\x03\x00", b"\x03\xff" + bytes(255)])
    def test_the_bound_address_is_skipped_and_the_rest_is_kept(self, bound: bytes) -> None:
        socks = Socks5("h", 1)
        socks.feed(b"\x05\x00")
        assert socks.feed(b"\x05\x00\x00" + bound + b"\0\1rest") == b""
        assert socks.done
        assert (socks.rest(), socks.rest()) == (b"rest", b"")

    @pytest.mark.parametrize("size", [0, 256])
    def test_a_host_too_long_for_socks5_is_refused(self, size: int) -> None:
        with pytest.raises(ValueError, match=f"the host of a SOCKS5 proxy has 1 to 255 bytes, not {size}"):
            Socks5("x" * size, 1)


class TestAuthentication:
    """RFC 1928 §3 and RFC 1929 §2: a user name and a password."""

    def test_the_credentials_are_sent_in_these_bytes(self) -> None:
        socks = Socks5("h", 1, "user", "pass")
        assert socks.greeting() == b"\x05\x02\x00\x02"
        assert socks.feed(b"\x05\x02") == b"\x01\x04user\x04pass"
        assert socks.feed(b"\x01\x00") == b"\x05\x01\x00\x03\x01h\0\1"

    def test_credentials_are_not_sent_to_a_proxy_that_wants_none(self) -> None:
        assert Socks5("h", 1, "user", "pass").feed(b"\x05\x00") == b"\x05\x01\x00\x03\x01h\0\1"

    @pytest.mark.parametrize("size", [255, 256])
    def test_the_length_of_the_credentials_is_limited(self, size: int) -> None:
        if size == 255:
            Socks5("h", 1, "u" * size, "p" * size)
        else:
            with pytest.raises(ValueError, match="password"):
                Socks5("h", 1, "u", "p" * size)


class TestDeclined:
    """RFC 1928 §3 and §6, RFC 1929 §2: answers of a proxy that does not connect."""

    @pytest.mark.parametrize(
        ("answers", "credentials", "why", "code"),
        [
            (b"\x05\xff", (), "it wants a user name and a password", None),
            (b"\x05\xff", ("u", "p"), "it wants another way of authentication", None),
            (b"\x05\x02", (), "it chose a way of authentication that was not offered", None),
            (b"\x05\x01", (), "it chose a way of authentication that was not offered", None),
            (b"\x05\x02\x01\x01", ("u", "p"), "the user name or the password is wrong", None),
            (b"HTTP/1.1 400 Bad", (), "it does not speak SOCKS5", None),
            (b"\x04\x5a", (), "it does not speak SOCKS5", None),
            (b"\x05\x00\x04", (), "it does not speak SOCKS5", None),
            (b"\x05\x00\x05\x02\x00\x01\0", (), "not allowed by its rules", 2),
            (b"\x05\x00\x05\x05\x00\x01\0", (), "connection refused", 5),
            (b"\x05\x00\x05\x63\x00\x01\0", (), "error 99", 99),
            (b"\x05\x00\x05\x00\x00\x02\0", (), "its reply is not SOCKS5", None),
        ],
    )
    @pytest.mark.parametrize("size", [1, 100])
    def test_the_error_says_why(
        self, answers: bytes, credentials: tuple[str, str], why: str, code: int | None, size: int
    ) -> None:
        with pytest.raises(SocksDeclined) as caught:
            told(Socks5("h", 1, *credentials), answers, size)
        assert (str(caught.value), caught.value.code) == (f"The SOCKS5 proxy does not connect: {why}", code)
