"""Tests of `twisted_beastws.wire.fields`."""

from __future__ import annotations

import pytest
from twisted.web.http_headers import Headers as TwistedHeaders

from twisted_beastws.wire.fields import Headers, has_token, list_elements


class TestHeaders:
    """RFC 9110 §5.5 and §5.6.2: field values and tokens."""

    @pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\0b", b"a\r\nX: y", b"\n", b"a\0"])
    def test_a_value_that_would_break_the_head_is_refused(self, bad: str | bytes) -> None:
        headers = Headers()
        with pytest.raises(ValueError, match="X-Name"):
            headers.setRawHeaders("X-Name", ["good", bad])
        with pytest.raises(ValueError, match="X-Name"):
            headers.addRawHeader("X-Name", bad)
        with pytest.raises(ValueError, match="X-Name"):
            Headers({"X-Name": [bad.decode() if isinstance(bad, bytes) else bad]})
        assert not headers.hasHeader("X-Name")

    @pytest.mark.parametrize("bad", ["", "a b", "a:", "a\r\nb", b"a\0", "ü", b"\xff", "a\n"])
    def test_a_name_that_is_no_token_is_refused(self, bad: str | bytes) -> None:
        with pytest.raises(ValueError, match="not a field name"):
            Headers().setRawHeaders(bad, ["x"])
        with pytest.raises(ValueError, match="not a field name"):
            Headers().addRawHeader(bad, "x")

    def test_headers_behave_like_twisteds_otherwise(self) -> None:
        headers = Headers({"content-type": ["text/plain; x=ü"]})
        headers.addRawHeader(b"X-a", b"\xff\t1")
        assert isinstance(headers, TwistedHeaders)
        assert headers.getRawHeaders(b"Content-Type") == ["text/plain; x=ü".encode()]
        assert headers.getRawHeaders(b"x-A") == [b"\xff\t1"]

    def test_a_copy_refuses_bad_fields_too(self) -> None:
        with pytest.raises(ValueError):
            Headers().copy().setRawHeaders("X", ["\n"])


class TestPackedHeaders:
    """Packed fields are stored as bytes until they are used again."""

    FIELDS = (
        ("Host", ["localhost:80"]),
        ("X-A", ["1", "a: b", ""]),
        ("ETag", [" spaced "]),
        ("WWW-Authenticate", ["x"]),
    )

    def test_all_fields_are_found_again_in_order(self) -> None:
        headers, untouched = Headers(dict(self.FIELDS)), Headers(dict(self.FIELDS))
        headers.pack()
        assert list(headers.getAllRawHeaders()) == list(untouched.getAllRawHeaders())

    @pytest.mark.parametrize("fields", [{}, {"X-A": []}])
    def test_packing_no_fields_gives_no_fields_back(self, fields: dict[str, list[str]]) -> None:
        headers = Headers(fields)
        headers.pack()
        assert not headers.getRawHeaders("X-A")

    def test_fields_can_be_changed_and_packed_again(self) -> None:
        headers = Headers({"X-A": ["1"]})
        headers.pack()
        headers.addRawHeader("X-A", "2")
        headers.pack()
        headers.pack()
        assert headers.getRawHeaders("X-A") == ["1", "2"]
        assert headers == Headers({"X-A": ["1", "2"]})

    def test_an_unknown_attribute_raises_attribute_error(self) -> None:
        headers = Headers()
        headers.pack()
        with pytest.raises(AttributeError, match="Headers has no attribute 'fields'"):
            headers.fields  # noqa: B018


class TestListElements:
    """RFC 9110 §5.6.1: fields that are lists of elements."""

    def test_repeated_fields_are_one_list(self) -> None:
        assert list_elements([b"a, b", b"\tc ,", b""]) == [b"a", b"b", b"c", b"", b""]
        assert list_elements([]) == []

    @pytest.mark.parametrize("count", [99, 100, 101])
    @pytest.mark.parametrize("fields", [1, 7, 101])
    def test_at_most_100_elements_are_returned(self, count: int, fields: int) -> None:
        names = [b"%d" % number for number in range(count)]
        size = -(-count // fields)
        values = [b", ".join(names[at : at + size]) for at in range(0, count, size)]
        assert list_elements(values) == names[:100]
        assert has_token(values, b"99") is (count >= 100)
        assert not has_token(values, b"100")
