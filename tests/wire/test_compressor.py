"""Tests of `twisted_beastws.wire.compressor`: whichever compresses, zlib inflates it."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_beastws import Deflate, prepare
from twisted_beastws.wire import compressor
from twisted_beastws.wire.compressor import compress_alone, new_compressor
from twisted_beastws.wire.deflate import Negotiated, PerMessageDeflate

MESSAGES = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.builds(lambda unit, count: unit * count, st.binary(max_size=40), st.integers(0, 900)),
    )
)


if not hasattr(compressor, "isal_zlib"):
    pytest.skip("ISA-L IS NOT TESTED: pip install isal", allow_module_level=True)


@contextmanager
def compressing_by(isal: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compressor, "ISAL", isal)
        # No test may get a compressor that was made before.
        compressor._idle.clear()
        yield
    # No test may get a compressor that was made before.
    compressor._idle.clear()


@pytest.fixture(params=[True, False], ids=["isal", "zlib"])
def isal(request: pytest.FixtureRequest) -> Iterator[bool]:
    with compressing_by(request.param):
        yield request.param


@given(st.booleans(), st.integers(0, 9), st.integers(9, 15), st.integers(1, 9), st.booleans(), MESSAGES)
def test_a_round_trip_returns_each_message(
    isal: bool, level: int, bits: int, mem_level: int, alone: bool, messages: list[bytes]
) -> None:
    options = Deflate(level=level, mem_level=mem_level)
    agreed = Negotiated("", bits, bits, alone, alone)
    ours, theirs = PerMessageDeflate(agreed, options, True), PerMessageDeflate(agreed, options, False)
    with compressing_by(isal):
        for message in messages:
            pieces = theirs.inflate(ours.compress(message), True, len(message))
            assert b"".join(piece for piece, _ in pieces) == message


@pytest.mark.parametrize("bits", range(9, 16))
def test_the_compressor_refers_to_no_byte_before_its_window(isal: bool, bits: int) -> None:
    unit = os.urandom(700)
    compressed = new_compressor(8, bits, 4)
    octets = compressed.compress(unit + os.urandom(40_000) + unit) + compressed.flush(zlib.Z_SYNC_FLUSH)
    assert zlib.decompressobj(-bits).decompress(octets)[-700:] == unit


@given(st.booleans(), st.integers(0, 9), st.integers(9, 15), st.integers(1, 9), MESSAGES)
def test_a_shared_compressor_gives_the_bytes_of_a_private_one(
    isal: bool, level: int, bits: int, mem_level: int, messages: list[bytes]
) -> None:
    with compressing_by(isal):
        for message in filter(None, messages):
            own = new_compressor(level, bits, mem_level)
            octets = own.compress(message) + own.flush(zlib.Z_SYNC_FLUSH)
            shared = compress_alone(message, level, bits, mem_level) + b"\0\0\xff\xff"
            assert zlib.decompressobj(-bits).decompress(shared) == message
            assert isal or shared == octets


class Meddled:
    """A compressor that calls ``meddle`` between the message and the flush."""

    def __init__(self, meddle: Callable[..., Any]) -> None:
        self.made = new_compressor(6, 15, 8)
        self.meddle = meddle

    def compress(self, data: bytes) -> bytes:
        return self.made.compress(data)

    def flush(self, mode: int) -> bytes | None:
        self.meddle()
        return self.made.flush(mode)


def test_a_compressor_that_failed_is_not_used_again(isal: bool) -> None:
    def fail() -> None:
        raise MemoryError

    # The next call takes this compressor, as if an earlier call had left it.
    compressor._idle[6, 15, 8] = Meddled(fail)  # type: ignore[assignment]
    with pytest.raises(MemoryError):
        compress_alone(b"the first" * 100, 6, 15, 8)
    second = compress_alone(b"the second" * 100, 6, 15, 8) + b"\0\0\xff\xff"
    assert zlib.decompressobj(-15).decompress(second) == b"the second" * 100


def test_a_call_within_a_call_uses_another_compressor(isal: bool) -> None:
    between: list[bytes] = []

    def meddle() -> None:
        between.append(compress_alone(b"between" * 100, 6, 15, 8))

    # The next call takes this compressor, as if an earlier call had left it.
    compressor._idle[6, 15, 8] = Meddled(meddle)  # type: ignore[assignment]
    first = compress_alone(b"the first" * 100, 6, 15, 8)
    for octets, message in ((first, b"the first" * 100), (between[0], b"between" * 100)):
        assert zlib.decompressobj(-15).decompress(octets + b"\0\0\xff\xff") == message


def test_at_most_16_idle_compressors_are_kept(isal: bool) -> None:
    for bits in range(9, 16):
        for level in (1, 6, 9):
            compress_alone(b"a message" * 100, level, bits, 8)
    # No public name shows how many are kept.
    assert len(compressor._idle) <= 16


def test_a_short_message_is_not_longer_with_isal() -> None:
    message = b'{"id": 12, "user": "ann", "text": "hello", "read": true}'
    with compressing_by(True):
        own = new_compressor(8, 15, 4)
        assert len(compress_alone(message, 8, 15, 4)) == len(own.compress(message) + own.flush(zlib.Z_SYNC_FLUSH)) - 4


def test_level_0_stores_without_compression(isal: bool) -> None:
    stored = new_compressor(0, 15, 4)
    assert len(stored.compress(b"a" * 1000) + stored.flush(zlib.Z_SYNC_FLUSH)) > 1000


def test_isal_compresses_if_it_is_selected(isal: bool) -> None:
    octets = prepare(b"a text of some length, " * 100).compressed((15, 8, 4)).payload
    made = zlib.compressobj(8, zlib.DEFLATED, -15, 4)
    same = octets == (made.compress(b"a text of some length, " * 100) + made.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert same is not isal


@pytest.mark.parametrize(("value", "chosen"), [(None, True), ("", True), ("0", True), ("1", False)])
def test_the_environment_chooses_the_compressor(value: str | None, chosen: bool, tmp_path: Path) -> None:
    environment = {name: text for name, text in os.environ.items() if name != compressor.ZLIB_VARIABLE}
    if value is not None:
        environment[compressor.ZLIB_VARIABLE] = value
    asked = "from twisted_beastws.wire import compressor; print(compressor.ISAL)"
    told = subprocess.run(
        [sys.executable, "-c", asked], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert told.stdout.strip() == str(chosen)
