"""Tests of `twisted_beastws.wire.origin`."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twisted_beastws import Headers, Request, errors
from twisted_beastws.options import Origins
from twisted_beastws.wire.origin import check_allowed, check_origin


def asking(origin: str | None, host: str | None = "localhost") -> Request:
    """A request of a page from ``origin``."""
    fields = {"Origin": origin, "Host": host}
    given: dict[str | bytes, Any] = {
        name: [value.encode("latin-1")] for name, value in fields.items() if value is not None
    }
    return Request("GET", "/", "1.1", Headers(given))


class TestCheck:
    """RFC 6455 §10.2: pages of this site, and of others."""

    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            ("http://chat.example", "chat.example"),
            ("http://chat.example:80", "chat.example"),
            ("http://chat.example", "chat.example:80"),
            ("http://chat.example", "chat.example:"),
            ("https://chat.example", "chat.example"),
            ("https://chat.example", "chat.example:443"),
            ("https://chat.example:443", "chat.example"),
            ("ws://chat.example", "chat.example:80"),
            ("wss://chat.example", "chat.example:443"),
            ("http://chat.example:1984", "chat.example:1984"),
            ("HTTP://Chat.Example", "cHAT.eXAMPLE"),
            ("http://[::1]:1984", "[::1]:1984"),
            ("http://[::FFFF]", "[::ffff]"),
            ("http://localhost.", "localhost."),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ],
    )
    def test_a_page_of_this_site_is_accepted(self, origin: str, host: str) -> None:
        request = asking(origin, host)
        check_origin(request, Origins())
        with pytest.raises(errors.OriginRefused):
            check_origin(request, Origins(same_site=False))

    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            ("https://evil.example", "chat.example"),
            ("http://chat.example:8080", "chat.example"),
            ("http://chat.example", "chat.example:8080"),
            ("http://chat.example", "chat.example:443"),
            ("https://chat.example", "chat.example:80"),
            ("http://chat.example.evil.example", "chat.example"),
            ("http://evil-chat.example", "chat.example"),
            ("http://xchat.example", "chat.example"),
            ("http://sub.chat.example", "chat.example"),
            ("http://chat.example.", "chat.example"),
            ("http://chat.example", "chat.example."),
            ("http://user@chat.example", "chat.example"),
            ("http://chat.example@evil.example", "chat.example"),
            ("http://evil.example#@chat.example", "chat.example"),
            ("http://chat.example/", "chat.example"),
            ("http://chat.example/x", "chat.example"),
            ("http://chat.example?x", "chat.example"),
            ("http://chat.example:", "chat.example"),
            ("http://chat.example:80:80", "chat.example"),
            ("http://chat.example:+80", "chat.example"),
            ("http://chat.example:٨٠".encode().decode("latin-1"), "chat.example"),
            ("http://chat.example http://evil.example", "chat.example"),
            ("http://", "chat.example"),
            ("http://", ""),
            ("http:///", ""),
            ("http:chat.example", "chat.example"),
            ("//chat.example", "chat.example"),
            ("chat.example", "chat.example"),
            ("ftp://chat.example", "chat.example"),
            ("file://chat.example", "chat.example"),
            ("chrome-extension://chat.example", "chat.example"),
            ("null", "chat.example"),
            ("null", "null"),
            ("NULL", "chat.example"),
            ("", "chat.example"),
            ("", ""),
            ("http://chat.example", ""),
            ("http://chat.example", "user@chat.example"),
            ("http://chat.example", "chat.example:80:80"),
            ("http://[::1]", "[::2]"),
        ],
    )
    def test_a_page_of_another_site_is_refused(self, origin: str, host: str) -> None:
        request = asking(origin, host)
        with pytest.raises(errors.OriginRefused) as caught:
            check_origin(request, Origins(allowed=("https://other.example",)))
        assert caught.value.status == 403
        check_origin(request, Origins(allow_any_origin_dangerously=True))

    def test_a_request_without_origin_is_accepted(self) -> None:
        check_origin(asking(None), Origins(same_site=False))

    def test_a_request_without_host_is_refused(self) -> None:
        with pytest.raises(errors.OriginRefused):
            check_origin(asking("http://a", None), Origins())

    @pytest.mark.parametrize(
        ("allowed", "origin"),
        [
            ("https://app.example", "https://app.example"),
            ("https://app.example:443", "https://App.example"),
            ("HTTPS://APP.example", "https://app.example:443"),
            ("http://app.example:8080", "http://app.example:8080"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("https://127.0.0.1:0443", "https://127.0.0.1"),
            ("https://[::1]", "https://[::1]"),
        ],
    )
    @pytest.mark.parametrize("same_site", [True, False])
    def test_an_allowed_origin_is_accepted(self, allowed: str, origin: str, same_site: bool) -> None:
        request = asking(origin)
        check_origin(request, Origins(allowed=("https://x.example", allowed), same_site=same_site))

    @pytest.mark.parametrize(
        ("allowed", "origin"),
        [
            ("https://app.example", "http://app.example"),
            ("https://app.example", "https://app.example:8443"),
            ("https://app.example", "https://app.example/"),
            ("https://app.example", "null"),
            ("https://app.example", ""),
        ],
    )
    def test_an_origin_that_is_not_allowed_is_refused(self, allowed: str, origin: str) -> None:
        with pytest.raises(errors.OriginRefused):
            check_origin(asking(origin), Origins(allowed=(allowed,)))

    @pytest.mark.parametrize(
        ("origin", "name"),
        [("null", "allow_null_origin_dangerously"), ("file://", "allow_file_origin_dangerously")],
    )
    def test_a_shared_origin_is_allowed_by_an_option_of_its_name(self, origin: str, name: str) -> None:
        check_origin(asking(origin), Origins(**{name: True}))  # type: ignore[arg-type]
        for other in ("null", "file://", "NULL", "file:///", "file://x", "https://evil.example"):
            if other != origin:
                with pytest.raises(errors.OriginRefused):
                    check_origin(asking(other), Origins(**{name: True}))  # type: ignore[arg-type]


# Values that a caller may give, the error for each, and the form that the error names.
NEVER = {
    "https://*.example.com": ("patterns are not matched, so name each site", None),
    "https://bücher.example": ("browsers send a host's name in ASCII", "https://xn--bcher-kva.example"),
    "https://faß.de:8443": ("browsers send a host's name in ASCII", "https://xn--fa-hia.de:8443"),
    "https://" + "ü" * 64: ("browsers send a host's name in ASCII", None),
    "https://example.com:": ("a port is a number from 1 to 65535", "https://example.com"),
    "https://example.com:0": ("a port is a number from 1 to 65535", "https://example.com"),
    "https://example.com:65536": ("a port is a number from 1 to 65535", None),
    "https://example.com:123456": ("a port is a number from 1 to 65535", None),
    "https://example.com:" + "1" * 5000: ("a port is a number from 1 to 65535", None),
    "https://example.com:8a": ("it has characters that an origin never has", None),
    "https:///example.com": ("a scheme, a host and perhaps a port, and nothing else", "https://example.com"),
    "https://example.com/": ("a scheme, a host and perhaps a port, and nothing else", "https://example.com"),
    "https://example.com/a?b#c": ("a scheme, a host and perhaps a port, and nothing else", "https://example.com"),
    "https://me:word@example.com": ("a scheme, a host and perhaps a port, and nothing else", "https://example.com"),
    " https://example.com": ("a scheme, a host and perhaps a port, and nothing else", "https://example.com"),
    "https:\\\\example.com": ("a scheme, a host and perhaps a port, and nothing else", "https://example.com"),
    "example.com": ("it has no scheme", "https://example.com"),
    "example.com:8080": ("it has no scheme", "https://example.com:8080"),
    "//example.com": ("it has no scheme", None),
    "wss://example.com": ("pages come by https:", "https://example.com"),
    "ws://example.com:8080": ("pages come by http:", "http://example.com:8080"),
    "https://127.1": ("browsers write this address in another way", "https://127.0.0.1"),
    "https://0x7F.0.0.1": ("browsers write this address in another way", "https://127.0.0.1"),
    "https://127.0.0.1.": ("browsers write this address in another way", "https://127.0.0.1"),
    "https://[0::1]:99": ("browsers write this address in another way", "https://[::1]:99"),
    "https://[::FFFF:1.2.3.4]": ("browsers write this address in another way", "https://[::ffff:102:304]"),
    "https://[::1%25eth0]": ("it has no valid host", None),
    "https://1.2.3.999": ("it has no valid host", None),
    "https://a..b": ("it has no valid host", None),
    "https://a%2eb": ("it has no valid host", None),
    "https://a b": ("it has characters that an origin never has", None),
    "https://": ("it has no valid host", None),
    "": ("it has no scheme", None),
    "not an origin": ("it has characters that an origin never has", None),
    "about:blank": ("it has characters that an origin never has", None),
}


class TestAllowed:
    """RFC 6454 §7: the values that an Origin field can have."""

    @pytest.mark.parametrize("value", NEVER)
    def test_a_value_that_can_never_match_is_refused_with_advice(self, value: str) -> None:
        trouble, written = NEVER[value]
        with pytest.raises(ValueError) as caught:
            Origins(allowed=("https://example.com", value))
        text = str(caught.value)
        assert text.startswith(f"Origins(allowed=...): {value!r} is the origin of no page: ")
        assert trouble in text
        if written is None:
            assert text.endswith("; write it as https://host or https://host:port")
        else:
            assert text.endswith(f"; write {written!r}")
            Origins(allowed=(written,))

    @pytest.mark.parametrize(
        ("value", "name"),
        [
            ("*", "allow_any_origin_dangerously"),
            ("null", "allow_null_origin_dangerously"),
            ("NULL", "allow_null_origin_dangerously"),
            ("file://", "allow_file_origin_dangerously"),
            ("file:///index.html", "allow_file_origin_dangerously"),
        ],
    )
    def test_a_shared_origin_is_refused_with_the_name_of_its_option(self, value: str, name: str) -> None:
        with pytest.raises(ValueError) as caught:
            Origins(allowed=(value,))
        assert f"Origins({name}=True) or --{name.replace('_', '-')} lets in" in str(caught.value)
        Origins(**{name: True})  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "value",
        [
            "https://example.com",
            "HTTPS://Example.COM:443",
            "https://example.com:1",
            "https://example.com:65535",
            "https://localhost.",
            "http://a_b.internal:8000",
            "https://xn--bcher-kva.example",
            "http://[2001:db8::1]:8080",
            "chrome-extension://abcdefghijklmnop",
            "moz-extension://6c1c3c3e-2b54-4b6b-8f2e-0f0e1f1d1c1b",
            "capacitor://localhost",
            "app://-",
        ],
    )
    def test_the_origins_of_browsers_and_web_views_are_accepted(self, value: str) -> None:
        check_origin(asking(value), Origins(allowed=[value]))  # type: ignore[arg-type]

    def test_the_advice_names_no_host_without_idna(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "idna", None)
        with pytest.raises(ValueError, match="a host's name in ASCII; write it as https://host or"):
            check_allowed("https://bücher.example")

    @pytest.mark.parametrize("value", ["https://app.example", None, 5])
    def test_a_list_of_another_type_is_refused(self, value: object) -> None:
        with pytest.raises(TypeError, match=r"must be a sequence of origins, such as \['https://example.com'\]"):
            Origins(allowed=value)  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", [b"https://app.example", None, 5])
    def test_an_origin_of_another_type_is_refused(self, value: object) -> None:
        with pytest.raises(TypeError, match=r"is not an origin: give str, such as 'https://example\.com'"):
            Origins(allowed=(value,))  # type: ignore[arg-type]

    def test_later_changes_of_the_list_are_ignored(self) -> None:
        allowed = ["https://a"]
        origins = Origins(allowed=allowed)  # type: ignore[arg-type]
        allowed.append("https://b")
        assert origins == Origins(allowed=("https://a",))

    @given(st.text(max_size=30) | st.from_regex(r"(https?|wss?|x)://[a-z0-9.\[\]:*@/-]{0,20}", fullmatch=True))
    @example("HTTPS://\u0130.example")
    @example("\u00b9")
    def test_the_advised_value_is_accepted(self, value: str) -> None:
        try:
            check_allowed(value)
        except ValueError as error:
            advised = re.search(r"; write '(.*)'\Z", str(error))
            if advised is not None:
                check_allowed(advised[1])
                check_origin(asking(advised[1]), Origins(allowed=(advised[1],)))
        else:
            check_origin(asking(value), Origins(allowed=(value,)))


class TestRefusal:
    """RFC 6455 §4.2.2 (4): the server refuses an origin with 403."""

    def test_the_error_shows_the_compared_values_and_the_option_to_set(self) -> None:
        request = asking("https://evil.example", "chat.example:8080")
        with pytest.raises(errors.OriginRefused) as caught:
            check_origin(request, Origins())
        text = (
            "The Origin https://evil.example is not this site (Host: chat.example:8080); "
            "allow it with Origins(allowed=...), --origin or origins="
        )
        assert str(caught.value) == text
        with pytest.raises(errors.OriginRefused, match="is not an allowed one; allow it with"):
            check_origin(request, Origins(same_site=False))

    def test_the_error_escapes_the_peers_text(self) -> None:
        request = asking("<script>\xff\t\\\"'&" + "x" * 9000, "&" * 9000)
        with pytest.raises(errors.OriginRefused) as caught:
            check_origin(request, Origins())
        text = str(caught.value)
        assert text.startswith(r"The Origin \x3cscript\x3e\xff\x09\x5c\x22\x27\x26xxx")
        assert text.isascii() and text.isprintable() and len(text) < 500
        assert not set("<>&\"'") & set(text)

    @pytest.mark.parametrize("origin", ["null", "file://"])
    def test_the_error_for_a_shared_origin_names_its_options(self, origin: str) -> None:
        kind = origin.rstrip(":/")
        with pytest.raises(errors.OriginRefused) as caught:
            check_origin(asking(origin), Origins())
        assert str(caught.value) == (
            f"The Origin {origin} is not this site (Host: localhost); Origins(allow_{kind}_origin_dangerously=True) or "
            f"--allow-{kind}-origin-dangerously lets in all pages that send it"
        )

    @given(st.text(st.characters(max_codepoint=255), max_size=30) | st.sampled_from([*NEVER]))
    def test_the_error_never_advises_a_value_that_is_refused(self, origin: str) -> None:
        with suppress(ValueError):
            request = asking(origin.encode("latin-1", "ignore").decode("latin-1"))
            with pytest.raises(errors.OriginRefused) as caught:
                check_origin(request, Origins(same_site=False))
            if "Origins(allowed=...)" in str(caught.value):
                check_allowed(request.field("Origin"))
                check_origin(request, Origins(allowed=(str(request.field("Origin")),)))


class TestOverTLS:
    """RFC 6455 §10.2: over TLS, a page that was sent in clear counts as another site.

    An attacker on the network can write such a page; a page over TLS reached the browser unchanged.
    """

    @pytest.mark.parametrize("origin", ["http://site.example", "http://site.example:80", "ws://site.example"])
    def test_a_page_in_clear_is_another_site(self, origin: str) -> None:
        request = asking(origin, "site.example")
        check_origin(request, Origins())
        with pytest.raises(errors.OriginRefused) as refused:
            check_origin(request, Origins(), over_tls=True)
        assert "is not this site (Host: site.example, over TLS)" in str(refused.value)
        check_origin(asking("http://site.example", "a"), Origins(allowed=("http://site.example",)), over_tls=True)

    @pytest.mark.parametrize("host", ["site.example:8443", "site.example"])
    def test_a_page_over_tls_is_this_site(self, host: str) -> None:
        check_origin(asking(f"https://{host}", host), Origins(), over_tls=True)

    def test_a_program_without_origin_is_accepted(self) -> None:
        check_origin(asking(None), Origins(), over_tls=True)
