"""Tests of `twisted_beastws.wire.url`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_beastws.wire.url import WebSocketURL, basic_credentials

parse = WebSocketURL.parse


class TestParse:
    """RFC 6455 §3: the parts of a WebSocket URL."""

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("ws://host/chat", ("ws", "host", 80, "/chat")),
            ("wss://host/chat", ("wss", "host", 443, "/chat")),
            ("http://host/chat", ("ws", "host", 80, "/chat")),
            ("https://host/chat", ("wss", "host", 443, "/chat")),
            ("WS://HOST/Chat", ("ws", "host", 80, "/Chat")),
            ("ws://host", ("ws", "host", 80, "/")),
            ("ws://host:1984", ("ws", "host", 1984, "/")),
            ("ws://host:", ("ws", "host", 80, "/")),
            ("ws://host?a=b", ("ws", "host", 80, "/?a=b")),
            ("ws://host/?", ("ws", "host", 80, "/")),
            (" ws://host/ ", ("ws", "host", 80, "/")),
            ("ws://[::1]/", ("ws", "::1", 80, "/")),
            ("wss://[2001:DB8::1]:8443/x", ("wss", "2001:db8::1", 8443, "/x")),
            ("ws://127.0.0.1:1/", ("ws", "127.0.0.1", 1, "/")),
            ("ws://my_service/", ("ws", "my_service", 80, "/")),
            ("ws://münchen.example/", ("ws", "xn--mnchen-3ya.example", 80, "/")),
            # IDNA 2008: IDNA 2003 made fass.de of the first.
            ("wss://faß.de/", ("wss", "xn--fa-hia.de", 443, "/")),
            ("ws://BÜCHER.example:1/", ("ws", "xn--bcher-kva.example", 1, "/")),
            ("ws://βόλος.com/", ("ws", "xn--nxasmm1c.com", 80, "/")),
            ("ws://a\u3002b/", ("ws", "a.b", 80, "/")),
            ("ws://\uff11\uff12\uff17.0.0.1/", ("ws", "127.0.0.1", 80, "/")),
            ("wss://host./", ("wss", "host.", 443, "/")),
            ("ws://host:65535/", ("ws", "host", 65535, "/")),
            (f"ws://{'a' * 63}/", ("ws", "a" * 63, 80, "/")),
            ("ws://host/a b", ("ws", "host", 80, "/a%20b")),
            ("ws://host/%2F?%20", ("ws", "host", 80, "/%2F?%20")),
            ("ws://host/ü?ü", ("ws", "host", 80, "/%C3%BC?%C3%BC")),
            ("ws://host/\r\nX: y", ("ws", "host", 80, "/X:%20y")),
        ],
    )
    def test_each_part_of_a_url_is_parsed(self, text: str, parts: tuple[str, str, int, str]) -> None:
        url = parse(text)
        assert (url.scheme, url.host, url.port, url.target) == parts
        assert (url.user, url.password) == ("", "")
        assert url.secure == (parts[0] == "wss")
        assert url.origin == parts[:3]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "does not begin with"),
            ("host:80", "does not begin with"),
            ("/chat", "does not begin with"),
            ("ftp://host/", "does not begin with"),
            ("ws:///chat", "names no host"),
            ("ws://:80/", "names no host"),
            ("ws://host/#", None),
            ("ws://host/#fragment", "has a fragment, which RFC 6455 §3 forbids"),
            ("ws://host:port/", "[Pp]ort"),
            ("ws://host:65536/", "[Pp]ort"),
            ("ws://host:-1/", "[Pp]ort"),
            ("ws://[::1/", "Invalid IPv6 URL"),
            ("ws://[fe80::1%25eth0]/", "characters"),
            ("ws://a b/", "characters"),
            ("ws://a%41/", "characters"),
            ("ws://a\\b/", "characters"),
            ("ws://a..b/", "label"),
            (f"ws://{'a' * 64}/", "label"),
            (f"ws://{'a.' * 127}a/", "label"),
            ("ws://☃.example/", "not allowed"),
            ("ws://host:٣/", "port"),
            (f"ws://host:{'9' * 5000}/", "a port is a number from 0 to 65535"),
            (f"ws://host:{'0' * 6}/", "a port is a number from 0 to 65535"),
        ],
    )
    def test_a_text_that_is_no_url_is_refused(self, text: str, why: str | None) -> None:
        if why is None:
            assert parse(text).target == "/"
            return
        with pytest.raises(ValueError, match=f"^not a WebSocket URL: .*{why}"):
            parse(text)

    @given(st.text())
    def test_any_text_is_parsed_or_raises_value_error(self, text: str) -> None:
        for whole in (text, "ws://" + text, "ws://host/" + text, "wss://[" + text):
            try:
                url = parse(whole)
            except ValueError:
                continue
            line = f"{url.host_field} {url.target}"
            assert line.isascii() and line.isprintable()
            assert line.count(" ") == 1


def test_an_error_shows_a_long_text_in_part() -> None:
    with pytest.raises(ValueError) as caught:
        parse("ws://host/#" + "x" * 10_000)
    assert len(str(caught.value)) < 500


class TestHostField:
    """RFC 6455 §4.1 (4): the Host field has the port only if it is not the default one."""

    @pytest.mark.parametrize(
        ("text", "field"),
        [
            ("ws://host:80/", "host"),
            ("ws://host:443/", "host:443"),
            ("wss://host:443/", "host"),
            ("wss://host:80/", "host:80"),
            ("ws://[::1]/", "[::1]"),
            ("ws://[::1]:81/", "[::1]:81"),
            ("ws://user:pass@host/", "host"),
        ],
    )
    def test_the_port_is_shown_if_it_is_not_the_default(self, text: str, field: str) -> None:
        assert parse(text).host_field == field


class TestUserinfo:
    """RFC 3986 §3.2.1 and RFC 7617 §2: the userinfo of a URL as HTTP Basic credentials."""

    @pytest.mark.parametrize(
        ("userinfo", "user", "password"),
        [
            ("user:pass", "user", "pass"),
            ("user", "user", ""),
            (":pass", "", "pass"),
            ("a%40b:%3A%2F", "a@b", ":/"),
            ("%C3%BC:x", "ü", "x"),
            ("user:a:b", "user", "a:b"),
        ],
    )
    def test_the_userinfo_is_unquoted(self, userinfo: str, user: str, password: str) -> None:
        url = parse(f"ws://{userinfo}@host/")
        assert (url.user, url.password, url.host) == (user, password, "host")
        assert url.authorization == basic_credentials(user, password)

    @pytest.mark.parametrize("userinfo", ["", "@", ":@"])
    def test_a_url_without_userinfo_has_no_authorization(self, userinfo: str) -> None:
        assert parse(f"ws://{userinfo}host/").authorization is None

    def test_the_credentials_are_encoded_as_rfc_7617_says(self) -> None:
        assert basic_credentials("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        assert basic_credentials("test", "123£") == "Basic dGVzdDoxMjPCow=="


class TestJoin:
    """RFC 3986 §5 and RFC 9110 §10.2.2: the URL that a Location field leads to."""

    @pytest.mark.parametrize(
        ("location", "joined"),
        [
            ("x", "wss://host:1/a/x"),
            ("../x", "wss://host:1/x"),
            ("/x?y", "wss://host:1/x?y"),
            ("?y", "wss://host:1/a/b?y"),
            ("", "wss://host:1/a/b?c"),
            ("#f", "wss://host:1/a/b?c"),
            ("/x#f", "wss://host:1/x"),
            ("//other/x", "wss://other/x"),
            ("wss://other/x", "wss://other/x"),
            ("https://other/x", "wss://other/x"),
            ("ws://other/x", "ws://other/x"),
            ("http://other:2/x", "ws://other:2/x"),
        ],
    )
    def test_a_location_is_joined_to_the_url(self, location: str, joined: str) -> None:
        assert parse("wss://host:1/a/b?c").join(location) == parse(joined)

    @pytest.mark.parametrize(
        ("location", "authorization"),
        [
            ("/x", basic_credentials("u", "p")),
            ("ws://host:80/x", basic_credentials("u", "p")),
            ("ws://new@host/x", basic_credentials("new", "")),
            ("wss://host/x", None),
            ("ws://host:81/x", None),
            ("ws://other/x", None),
        ],
    )
    def test_userinfo_stays_within_the_origin(self, location: str, authorization: str | None) -> None:
        assert parse("ws://u:p@host/").join(location).authorization == authorization

    @pytest.mark.parametrize(
        ("location", "target"),
        [
            ("/ü?ü".encode().decode("latin-1"), "/%C3%BC?%C3%BC"),
            ("/%C3%BC", "/%C3%BC"),
            ("/\xfc", "/%FC"),
            ("/\xfc/%41?\xe9=1", "/%FC/%41?%E9=1"),
        ],
    )
    def test_raw_bytes_are_percent_encoded(self, location: str, target: str) -> None:
        """As UTF-8, as browsers do, or as they came."""
        assert parse("ws://host/").join(location).target == target

    def test_a_host_of_raw_utf_8_is_converted(self) -> None:
        location = "wss://bücher.example/".encode().decode("latin-1")
        assert parse("ws://host/").join(location).host == "xn--bcher-kva.example"

    @pytest.mark.parametrize("location", ["mailto:a@b", "ftp://h/", "ws://", "http://[", "http://h:x/", "http://a b/"])
    def test_a_location_that_is_no_url_is_refused(self, location: str) -> None:
        with pytest.raises(ValueError):
            parse("ws://host/").join(location)
