"""Tests of `twisted_beastws.wire.head_buffer`."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_beastws.errors import BadRequest, HandshakeError, HeadTooLarge, TargetTooLong
from twisted_beastws.wire.head_buffer import HeadBuffer

from .test_http import HEAD, request


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def run(
    chunks: list[bytes], max_size: int = 200, max_lines: int = 8, max_empty_lines: int = 0
) -> tuple[list[bytes], object]:
    """Return the heads, and the end: the remaining bytes, or the error."""
    buffer = HeadBuffer(max_size, max_lines, "request", max_empty_lines)
    heads: list[bytes] = []
    for chunk in chunks:
        buffer.feed(chunk)
        try:
            while (head := buffer.take()) is not None:
                heads.append(head)
        except HandshakeError as error:
            return heads, (type(error), str(error))
    return heads, buffer.rest()


class TestHeadBuffer:
    """RFC 9112 §2.1 and §2.2: the head of a message ends with an empty line."""

    def test_heads_are_returned_whole_and_the_rest_is_kept(self) -> None:
        buffer = HeadBuffer(200, 8)
        assert buffer.take() is None
        buffer.feed(HEAD[:-1])
        assert buffer.take() is None
        buffer.feed(HEAD[-1:] + HEAD + b"\x81\x00")
        assert buffer.take() == HEAD
        assert buffer.take() == HEAD
        assert len(buffer.buffer) == 2
        assert buffer.rest() == b"\x81\x00"
        assert len(buffer.buffer) == 0
        assert buffer.rest() == b""

    def test_taking_the_rest_empties_the_buffer(self) -> None:
        buffer = HeadBuffer(len(HEAD), 5)
        buffer.feed(HEAD[:40])
        assert buffer.take() is None
        assert buffer.rest() == HEAD[:40]
        buffer.feed(HEAD)
        assert buffer.take() == HEAD

    @given(
        st.lists(
            st.sampled_from(
                [
                    HEAD,
                    b"GET / HTTP/1.1\r\n",
                    b"\r\n",
                    b"\r\n\r\n",
                    b"\n",
                    b"\r",
                    b"\0",
                    b"A: b\r\n",
                    b"x" * 70,
                    b"\x16\x03",
                ]
            ),
            max_size=12,
        ).map(b"".join),
        st.lists(st.integers(0, 400), max_size=12),
        st.sampled_from([0, 1, 3]),
    )
    def test_any_chunks_give_the_same_heads(self, data: bytes, cuts: list[int], empty: int) -> None:
        whole = run([data], max_empty_lines=empty)
        assert run(chunked(data, cuts), max_empty_lines=empty) == whole
        assert run([data[at : at + 1] for at in range(len(data))], max_empty_lines=empty) == whole

    @pytest.mark.parametrize("step", [1, 2, 3, 10_000])
    def test_the_number_of_empty_lines_is_limited(self, step: int) -> None:
        for count in (2, 3):
            data = (b"\r\n" * count + HEAD) * 4
            assert run(chunked(data, list(range(0, len(data), step))), len(HEAD), 5, 3) == ([HEAD] * 4, b"")
        assert run([b"\r\n" * 4 + HEAD], max_empty_lines=3)[1] == (BadRequest, "The request is not valid HTTP")
        assert run([b"\r\n\r"], max_empty_lines=1)[1] == (BadRequest, "The request is not valid HTTP")
        assert run([b"\r\n\r"], max_empty_lines=2) == ([], b"\r")

    @pytest.mark.parametrize(
        ("data", "error"),
        [
            (request(*[b"A: 1"] * 9)[:-2] + b"\n\0", HeadTooLarge),
            (b"G\0" + request(*[b"A: 1"] * 9), BadRequest),
            (b"\x16" + request(*[b"A: 1"] * 9)[:-2] + b"\n", BadRequest),
            (b"x" * 199 + b"\n", BadRequest),
            (b"x" * 200 + b"\n", TargetTooLong),
            (b"x" * 198 + b"\r\n", HeadTooLarge),
            (b"x" * 199 + b"\r\n", TargetTooLong),
        ],
    )
    @pytest.mark.parametrize("step", [1, 7, 10_000])
    def test_the_first_fault_decides_the_error(self, data: bytes, error: type[HandshakeError], step: int) -> None:
        _, end = run([data[at : at + step] for at in range(0, len(data), step)])
        assert isinstance(end, tuple) and end[0] is error

    @pytest.mark.parametrize("step", [1, 7, 10_000])
    def test_the_size_of_a_head_is_limited(self, step: int) -> None:
        head = request(b"X: " + b"v" * 50)
        chunks = [head[at : at + step] for at in range(0, len(head), step)]
        assert run(chunks, len(head)) == ([head], b"")
        assert run(chunks, len(head) + 1) == ([head], b"")
        assert run(chunks, len(head) - 1) == ([], (HeadTooLarge, "The request's head is too large"))

    def test_a_head_without_end_is_refused_at_the_size_limit(self) -> None:
        buffer = HeadBuffer(100, 8)
        buffer.feed(b"G" * 99)
        assert buffer.take() is None
        buffer.feed(b"G")
        with pytest.raises(HeadTooLarge) as caught:
            buffer.take()
        assert caught.value.status == 414

    @pytest.mark.parametrize("step", [1, 7, 10_000])
    def test_the_number_of_lines_is_limited(self, step: int) -> None:
        head = request(b"A: 1", b"B: 2", b"C: 3")
        chunks = [head[at : at + step] for at in range(0, len(head), step)]
        assert run(chunks, max_lines=5) == ([head], b"")
        assert run(chunks, max_lines=4) == ([head], b"")
        assert run(chunks, max_lines=3)[1] == (HeadTooLarge, "The request's head is too large")

    def test_a_head_without_end_is_refused_at_the_line_limit(self) -> None:
        buffer = HeadBuffer(1000, 2)
        buffer.feed(b"GET / HTTP/1.1\r\nA: 1\r\n")
        assert buffer.take() is None
        buffer.feed(b"B: 1\r\n")
        with pytest.raises(HeadTooLarge):
            buffer.take()

    def test_each_head_has_its_own_limits(self) -> None:
        assert run([HEAD * 50], len(HEAD), 5) == ([HEAD] * 50, b"")

    @pytest.mark.parametrize("behind", [b"\x81\x00" * 50_000, b"\n\0" * 10, b"\r\n" * 5000])
    def test_bytes_after_a_head_are_not_counted(self, behind: bytes) -> None:
        buffer = HeadBuffer(len(HEAD), 5)
        buffer.feed(HEAD + behind)
        assert buffer.take() == HEAD
        assert buffer.rest() == behind

    @pytest.mark.parametrize(
        "start",
        [
            b"\x16",
            b"\x16\x03\x01\x02\x00\x01",
            b"\r",
            b"\n",
            b" ",
            b"\0",
            b"\x80",
            b":",
            b"G\n",
            b"GET / HTTP/1.1\n",
            b"G\0",
        ],
    )
    def test_bytes_that_can_never_be_http_are_refused_early(self, start: bytes) -> None:
        assert run([start]) == ([], (BadRequest, "The request is not valid HTTP"))

    @pytest.mark.parametrize("start", [b"G", b"!", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\n"])
    def test_bytes_that_may_become_http_are_kept(self, start: bytes) -> None:
        assert run([start]) == ([], start)

    def test_errors_name_the_kind_of_message(self) -> None:
        buffer = HeadBuffer(3, 8, "response")
        buffer.feed(b"HTT")
        with pytest.raises(HeadTooLarge, match="The response's head is too large"):
            buffer.take()
        buffer.rest()
        buffer.feed(b"\n")
        with pytest.raises(BadRequest, match="The response is not valid HTTP"):
            buffer.take()

    def test_the_cost_is_linear_in_the_bytes(self) -> None:
        def cost(size: int) -> float:
            head = request(b"X: " + b"v" * size)
            best = 1e9
            for _ in range(3):
                buffer = HeadBuffer(len(head), 8)
                begin = time.process_time()
                for at in range(0, len(head), 16):
                    buffer.feed(head[at : at + 16])
                    taken = buffer.take()
                best = min(best, time.process_time() - begin)
                assert taken == head
            return best

        # 16 times the bytes: 16 times the time if linear, 256 times if not.
        assert cost(1 << 18) < 80 * cost(1 << 14)
