"""Tests of `twisted_beastws.wire.deflate`, and of the session that compresses."""

from __future__ import annotations

import random
import time
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_beastws import errors
from twisted_beastws.options import Deflate, Limits
from twisted_beastws.wire import compressor, deflate
from twisted_beastws.wire.deflate import (
    MAX_FIELDS_SIZE,
    SLICE,
    Extension,
    Negotiated,
    PerMessageDeflate,
    accept_offer,
    check_answer,
    offer,
    parse_extensions,
)
from twisted_beastws.wire.frames import FIN_BINARY, FIN_TEXT, LongFrame
from twisted_beastws.wire.session import Session

from . import peer
from .peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Event, Frame, octets, to

DEFAULTS = Deflate()
BOTH_ALONE = Deflate(server_no_context_takeover=True, client_no_context_takeover=True)
TAIL = b"\0\0\xff\xff"

HELLO = bytes.fromhex("ca48cdc9c90700")
HELLO_AGAIN = bytes.fromhex("ca00110000")
# RFC 7692 §7.2.3.4: "Hello" in the last block of its stream, and a byte after it.
HELLO_FINAL = bytes.fromhex("f348cdc9c9070000")


def deflated(*messages: bytes, bits: int = 15, level: int = 9) -> list[bytes]:
    """Return the payloads that a peer sends for ``messages``, compressed with context takeover."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    return [(compressor.compress(each) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] or b"\0" for each in messages]


def noise(size: int) -> bytes:
    """Bytes that cannot be compressed, always the same."""
    return random.Random(size).randbytes(size)


@cache
def bomb(size: int) -> bytes:
    """``size`` zeros as one compressed message, made in small steps."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    step = bytes(1 << 20)
    parts = [compressor.compress(step[: min(len(step), size - at)]) for at in range(0, size, len(step))]
    return b"".join([*parts, compressor.flush(zlib.Z_SYNC_FLUSH)])[:-4]


def agree(options: Deflate = DEFAULTS) -> Negotiated:
    """Return the agreement of a client and a server that both have ``options``."""
    agreed = accept_offer([offer(options).encode()], options)
    assert agreed is not None
    return agreed


def codec(options: Deflate = DEFAULTS, server: bool = True) -> PerMessageDeflate:
    return PerMessageDeflate(agree(options), options, server)


def inflate(codec: PerMessageDeflate, *parts: bytes, room: int = 1 << 62) -> bytes:
    """A message in parts; checks that its end is reported once, and no piece is larger than allowed."""
    message = b""
    ends: list[bool] = []
    for at, part in enumerate(parts):
        final = at == len(parts) - 1
        for piece, ended in codec.inflate(part, final, room):
            assert len(piece) <= SLICE and not any(ends)
            message += piece
            room -= len(piece)
            ends.append(ended)
    assert ends[-1]
    return message


class TestOptions:
    """RFC 7692 §7.1: the parameters of the extension, as `Deflate` takes them."""

    @pytest.mark.parametrize(
        ("name", "least", "most"),
        [("server_max_window_bits", 9, 15), ("client_max_window_bits", 9, 15), ("level", 0, 9), ("mem_level", 1, 9)],
    )
    def test_each_option_has_its_range(self, name: str, least: int, most: int) -> None:
        for good in (least, most):
            assert (
                getattr(
                    Deflate(**{name: good}),  # type: ignore[arg-type]
                    name,
                )
                == good
            )
        for bad in (least - 1, most + 1):
            with pytest.raises(ValueError, match=name):
                Deflate(**{name: bad})  # type: ignore[arg-type]

    def test_a_negative_threshold_is_refused(self) -> None:
        assert Deflate(threshold=0).threshold == 0
        with pytest.raises(ValueError, match="threshold"):
            Deflate(threshold=-1)

    def test_the_defaults_are_those_of_beast(self) -> None:
        assert Deflate(15, 15, False, False, 8, 4, 0) == DEFAULTS


class TestParsing:
    """RFC 6455 §9.1: the syntax of the Sec-WebSocket-Extensions field."""

    @pytest.mark.parametrize(
        ("values", "parsed"),
        [
            ([], []),
            ([b""], []),
            ([b" , \t,"], []),
            ([b"a"], [("a", [])]),
            ([b"a, b"], [("a", []), ("b", [])]),
            ([b"a,,b,"], [("a", []), ("b", [])]),
            ([b"a; x", b"b"], [("a", [("x", None)]), ("b", [])]),
            ([b"a;x=1;y"], [("a", [("x", "1"), ("y", None)])]),
            ([b" a\t; x = 1 ;y , b "], [("a", [("x", "1"), ("y", None)]), ("b", [])]),
            # Beast loses `x`, and with it the rest of the list.
            ([b"a; x, b; y=2"], [("a", [("x", None)]), ("b", [("y", "2")])]),
            ([b'a; x="10"; y="\\1\\0", b'], [("a", [("x", "10"), ("y", "10")]), ("b", [])]),
            ([b"A; X=Y"], [("a", [("x", "Y")])]),
            ([b"a; x; x=1"], [("a", [("x", None), ("x", "1")])]),
        ],
    )
    def test_a_list_of_extensions_is_parsed(self, values: list[bytes], parsed: list[tuple[str, list[Any]]]) -> None:
        assert parse_extensions(values) == [Extension(*element) for element in parsed]

    @pytest.mark.parametrize(
        "value",
        [
            *(
                b";",
                b"=",
                b",;=,",
                b"a;",
                b"a; ;b",
                b"a;=1",
                b"a=1",
                b"a; x=",
                b"a; x=,b",
                b"a b",
                b"a; x y",
                b"a;x=1 2",
            ),
            *(
                b"a;x=1 2",
                b'a; x="1',
                b'a; x="1"2',
                b'a; x=""',
                b'a; x="1 2"',
                b'a; x="1,2"',
                b'a; x="\\',
                b'"a"',
                b"a; \xe4",
            ),
        ],
    )
    def test_a_malformed_field_is_refused(self, value: bytes) -> None:
        for values in ([value], [b"permessage-deflate", value], [value, b"permessage-deflate"]):
            with pytest.raises(errors.BadExtension, match="malformed"):
                parse_extensions(values)

    @pytest.mark.parametrize("unit", [b" ", b",", b"a ", b"a;", b"a,", b"a;x=1", b';x="\\"', b'a;x="\\a'])
    def test_parsing_takes_linear_time(self, unit: bytes) -> None:
        count = (MAX_FIELDS_SIZE - 5) // len(unit)
        began = time.process_time()
        for value in (unit * count, b"a" + unit * count, b"a; x" + unit * count + b"\xff"):
            try:
                parse_extensions([value])
            except errors.BadExtension as error:
                assert "malformed" in str(error)
        assert time.process_time() - began < 0.1

    @pytest.mark.parametrize("size", [1535, 1536, 1537])
    @pytest.mark.parametrize("fields", [1, 2])
    def test_a_field_above_its_size_is_refused(self, size: int, fields: int) -> None:
        values = [b"a", b"b" * (size - 1)] if fields == 2 else [b"a" * size]
        if size <= MAX_FIELDS_SIZE:
            assert len(parse_extensions(values)) == fields
        else:
            with pytest.raises(errors.BadExtension, match="Sec-WebSocket-Extensions field is too long"):
                parse_extensions(values)

    @given(st.lists(st.text(max_size=20), max_size=3))
    def test_any_text_is_parsed_or_is_refused(self, values: list[str]) -> None:
        with suppress(errors.BadExtension):
            parse_extensions([value.encode() for value in values])


# The columns of Beast's table of answers.
SERVERS = (
    DEFAULTS,
    Deflate(server_max_window_bits=10),
    Deflate(client_max_window_bits=10),
    Deflate(server_max_window_bits=9, client_max_window_bits=9),
    BOTH_ALONE,
)
ALONE = "server_no_context_takeover; client_no_context_takeover"
S9, S10, S12 = (f"server_max_window_bits={bits}" for bits in (9, 10, 12))
C9, C10, C15 = (f"client_max_window_bits={bits}" for bits in (9, 10, 15))

# The answer of each of SERVERS, None for no answer; "" is the name alone.
C8 = "client_max_window_bits=8"
SAME_AS_BEAST: dict[str, tuple[str | None, ...]] = {
    "permessage-deflate": ("", S10, None, None, ALONE),
    "permessage-deflate; client_max_window_bits": ("", S10, C10, f"{S9}; {C9}", ALONE),
    "permessage-deflate; client_max_window_bits=15": (C15, f"{S10}; {C15}", C10, f"{S9}; {C9}", f"{ALONE}; {C15}"),
    "permessage-deflate; client_max_window_bits=10": (C10, f"{S10}; {C10}", C10, f"{S9}; {C9}", f"{ALONE}; {C10}"),
    "permessage-deflate; client_max_window_bits=7": (None,) * 5,
    "permessage-deflate; client_max_window_bits=16": (None,) * 5,
    'permessage-deflate; client_max_window_bits="10"': (C10, f"{S10}; {C10}", C10, f"{S9}; {C9}", f"{ALONE}; {C10}"),
    "permessage-deflate; server_max_window_bits=10": (S10, S10, None, None, f"{ALONE}; {S10}"),
    "permessage-deflate; server_max_window_bits": (None,) * 5,
    "permessage-deflate; server_no_context_takeover": (
        "server_no_context_takeover",
        f"server_no_context_takeover; {S10}",
        None,
        None,
        ALONE,
    ),
    "permessage-deflate; client_no_context_takeover": (
        "client_no_context_takeover",
        f"client_no_context_takeover; {S10}",
        None,
        None,
        ALONE,
    ),
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12; "
    "client_max_window_bits": (
        f"{ALONE}; {S12}",
        f"{ALONE}; {S10}",
        f"{ALONE}; {S12}; {C10}",
        f"{ALONE}; {S9}; {C9}",
        f"{ALONE}; {S12}",
    ),
    "permessage-deflate; server_no_context_takeover=1": (None,) * 5,
    "permessage-deflate; client_max_window_bits; client_max_window_bits": (None,) * 5,
    "permessage-deflate; unknown_parameter": (None,) * 5,
    "permessage-deflate; unknown_parameter, permessage-deflate": ("", S10, None, None, ALONE),
    "PERMESSAGE-DEFLATE": ("", S10, None, None, ALONE),
    "x-webkit-deflate-frame": (None,) * 5,
    "x-webkit-deflate-frame, permessage-deflate; client_max_window_bits": ("", S10, C10, f"{S9}; {C9}", ALONE),
    "permessage-deflate; server_max_window_bits=10, permessage-deflate": (S10, S10, None, None, f"{ALONE}; {S10}"),
}
OTHER_THAN_BEAST: dict[str, tuple[str | None, ...]] = {
    # zlib has no window of 8 to compress with. Beast answers the server's with 9, against RFC 7692 §7.1.2.1.
    "permessage-deflate; server_max_window_bits=8": (None,) * 5,
    # zlib inflates it, which Beast declines.
    "permessage-deflate; client_max_window_bits=8": (C8, f"{S10}; {C8}", C8, f"{S9}; {C8}", f"{ALONE}; {C8}"),
    "permessage-deflate; server_max_window_bits=8; client_max_window_bits=8": (None,) * 5,
    # RFC 7692 §7.1.2.1: a requested parameter is answered. Beast answers with less than 15 only.
    "permessage-deflate; server_max_window_bits=15": (
        "server_max_window_bits=15",
        S10,
        None,
        None,
        f"{ALONE}; server_max_window_bits=15",
    ),
    # Beast reads the first element alone, and loses a parameter without a value before a comma.
    "permessage-deflate; server_max_window_bits=8, permessage-deflate": ("", S10, None, None, ALONE),
    "permessage-deflate; client_no_context_takeover=, permessage-deflate": ("malformed",) * 5,
    "permessage-deflate; server_no_context_takeover, x": (
        "server_no_context_takeover",
        f"server_no_context_takeover; {S10}",
        None,
        None,
        ALONE,
    ),
    "permessage-deflate; server_max_window_bits=10, permessage-deflate; client_max_window_bits": (
        S10,
        S10,
        C10,
        f"{S9}; {C9}",
        f"{ALONE}; {S10}",
    ),
    # An element has its own parameters, not those of the one before.
    "permessage-deflate; unknown=1, permessage-deflate": ("", S10, None, None, ALONE),
}


class TestServer:
    """RFC 7692 §7 and §7.1: the server's answer to an offer."""

    @pytest.mark.parametrize("column", range(5))
    @pytest.mark.parametrize("offered", [*SAME_AS_BEAST, *OTHER_THAN_BEAST])
    def test_each_offer_has_its_answer(self, offered: str, column: int) -> None:
        expected = {**SAME_AS_BEAST, **OTHER_THAN_BEAST}[offered][column]
        for values in (
            [offered.encode()],
            [each.encode() for each in offered.split(", ")],
            [b"x; y=z", offered.encode()],
        ):
            if expected == "malformed":
                with pytest.raises(errors.BadExtension, match="malformed"):
                    accept_offer(values, SERVERS[column])
                continue
            agreed = accept_offer(values, SERVERS[column])
            answer = None if agreed is None else agreed.answer
            assert answer == (None if expected is None else "; ".join(filter(None, ["permessage-deflate", expected])))

    @pytest.mark.parametrize("value", ["08", "9x", "+9", " 9", "9.", "0x9", "٩", "1O", "100", ""])
    @pytest.mark.parametrize("name", ["server_max_window_bits", "client_max_window_bits"])
    def test_a_parameter_with_a_bad_value_is_declined(self, name: str, value: str) -> None:
        offered = f'permessage-deflate; {name}="{value}"'.encode()
        try:
            assert accept_offer([offered], DEFAULTS) is None
        except errors.BadExtension as error:
            assert "malformed" in str(error)

    def test_the_server_answers_nothing_without_an_offer(self) -> None:
        assert accept_offer([], DEFAULTS) is None

    def test_the_agreement_has_all_parameters(self) -> None:
        offered = b"permessage-deflate; server_max_window_bits=12; client_max_window_bits; client_no_context_takeover"
        assert accept_offer([offered], Deflate(client_max_window_bits=10)) == Negotiated(
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=12; client_max_window_bits=10",
            server_max_window_bits=12,
            client_max_window_bits=10,
            server_no_context_takeover=False,
            client_no_context_takeover=True,
        )


class TestClient:
    """RFC 7692 §7 and §7.1: the client's offer, and its check of the answer."""

    @pytest.mark.parametrize(
        ("options", "offered"),
        [
            # Beast writes windows of 15, with their values; servers that know none answer without compression.
            (DEFAULTS, "permessage-deflate; client_max_window_bits"),
            (Deflate(level=1, mem_level=9, threshold=64), "permessage-deflate; client_max_window_bits"),
            (
                Deflate(10, 11, True, True),
                "permessage-deflate; server_max_window_bits=10; client_max_window_bits=11; "
                "server_no_context_takeover; client_no_context_takeover",
            ),
            (Deflate(9), "permessage-deflate; server_max_window_bits=9; client_max_window_bits"),
            (BOTH_ALONE, f"permessage-deflate; client_max_window_bits; {ALONE}"),
        ],
    )
    def test_the_offer_has_the_options(self, options: Deflate, offered: str) -> None:
        assert offer(options) == offered

    @pytest.mark.parametrize(
        ("answer", "options", "agreed"),
        [
            ("permessage-deflate", DEFAULTS, (15, 15, False, False)),
            ("PerMessage-Deflate", DEFAULTS, (15, 15, False, False)),
            ("permessage-deflate; client_max_window_bits=15", DEFAULTS, (15, 15, False, False)),
            ('permessage-deflate; client_max_window_bits="9"', DEFAULTS, (15, 9, False, False)),
            # zlib inflates a window of 8.
            ("permessage-deflate; server_max_window_bits=8", DEFAULTS, (8, 15, False, False)),
            (f"permessage-deflate; {ALONE}", DEFAULTS, (15, 15, True, True)),
            ("permessage-deflate; client_max_window_bits=9", Deflate(client_max_window_bits=11), (15, 9, False, False)),
            # A client keeps to a limit that it offers for itself, even without an answer.
            ("permessage-deflate", Deflate(15, 11, False, True), (15, 11, False, True)),
            ("permessage-deflate; server_max_window_bits=9", Deflate(10), (9, 15, False, False)),
            (
                "permessage-deflate; server_no_context_takeover",
                Deflate(server_no_context_takeover=True),
                (15, 15, True, False),
            ),
        ],
    )
    def test_a_valid_answer_is_accepted(
        self, answer: str, options: Deflate, agreed: tuple[int, int, bool, bool]
    ) -> None:
        negotiated = check_answer([answer.encode()], options)
        assert negotiated is not None
        assert negotiated.answer == answer.lower().replace('"', "")
        assert agreed == (
            negotiated.server_max_window_bits,
            negotiated.client_max_window_bits,
            negotiated.server_no_context_takeover,
            negotiated.client_no_context_takeover,
        )

    @pytest.mark.parametrize(
        ("answer", "options"),
        [
            # Beast takes the first two, and is open without compression for the others.
            ("permessage-deflate; client_max_window_bits=8", DEFAULTS),  # zlib has no such window
            ("permessage-deflate; client_max_window_bits", DEFAULTS),  # RFC 7692 §7.1.2.2
            ("permessage-deflate; server_max_window_bits=16", DEFAULTS),
            ("permessage-deflate; server_max_window_bits", DEFAULTS),
            ("permessage-deflate; unknown", DEFAULTS),
            ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", DEFAULTS),
            ("permessage-deflate; server_no_context_takeover=1", DEFAULTS),
            ("x-foo", DEFAULTS),
            ("permessage-deflate, permessage-deflate", DEFAULTS),
            ("permessage-deflate, x-foo", DEFAULTS),
            ("permessage-deflate;", DEFAULTS),
            # These answers do not fit the offer.
            ("permessage-deflate", None),
            ("x-foo", None),
            ("permessage-deflate", Deflate(server_no_context_takeover=True)),
            ("permessage-deflate", Deflate(server_max_window_bits=14)),
            ("permessage-deflate; server_max_window_bits=11", Deflate(server_max_window_bits=10)),
            ("permessage-deflate; client_max_window_bits=11", Deflate(client_max_window_bits=10)),
        ],
    )
    def test_an_invalid_answer_is_refused(self, answer: str, options: Deflate | None) -> None:
        for values in ([answer.encode()], [each.encode() for each in answer.split(", ")]):
            with pytest.raises(errors.BadExtension):
                check_answer(values, options)

    @pytest.mark.parametrize("options", [None, DEFAULTS, Deflate(9, 9, True, True)])
    def test_an_absent_answer_is_a_decline(self, options: Deflate | None) -> None:
        assert check_answer([], options) is None


OPTIONS = st.builds(
    Deflate,
    server_max_window_bits=st.integers(9, 15),
    client_max_window_bits=st.integers(9, 15),
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    level=st.integers(0, 9),
    mem_level=st.integers(1, 9),
    threshold=st.sampled_from([0, 1, 5, 200]),
)


@given(OPTIONS, OPTIONS)
def test_both_ends_reach_the_same_agreement(client: Deflate, server: Deflate) -> None:
    agreed = accept_offer([offer(client).encode()], server)
    assert agreed is not None
    assert check_answer([agreed.answer.encode()], client) == agreed
    for name in ("server_max_window_bits", "client_max_window_bits"):
        assert getattr(agreed, name) == min(getattr(client, name), getattr(server, name))
    for name in ("server_no_context_takeover", "client_no_context_takeover"):
        assert getattr(agreed, name) == (getattr(client, name) or getattr(server, name))


class TestCompressing:
    """RFC 7692 §7.2.1: a compressed message has no tail, and refers to earlier ones only where both ends agreed."""

    def test_the_compressed_bytes_are_those_of_beast(self) -> None:
        sender = codec()
        assert [sender.compress(each) for each in (b"hello", b"", b"hello", b"")] == [HELLO, b"\0", HELLO_AGAIN, b"\0"]

    @pytest.mark.parametrize("server", [True, False])
    def test_the_context_is_dropped_if_its_owner_agreed(self, server: bool) -> None:
        for options, alone in (
            (Deflate(server_no_context_takeover=True), server),
            (Deflate(client_no_context_takeover=True), not server),
        ):
            sender = codec(options, server)
            assert [sender.compress(b"hello") for _ in range(2)] == [HELLO, HELLO if alone else HELLO_AGAIN]

    def test_no_later_message_refers_to_a_forgotten_one(self) -> None:
        sender = codec()
        assert sender.compress(b"hello") == HELLO
        sender.forget_sent()
        assert [sender.compress(b"hello") for _ in range(2)] == [HELLO, HELLO_AGAIN]

    @pytest.mark.parametrize("bits", range(9, 16))
    def test_the_window_is_as_small_as_agreed(self, bits: int) -> None:
        """Twice as much as the window holds is found again by its owner's larger window, and never by this one."""
        text = noise((1 << bits) + 300)
        options = Deflate(server_max_window_bits=bits, mem_level=9)
        small = codec(options).compress(text + text)
        assert zlib.decompressobj(-bits).decompress(small + TAIL) == text + text
        assert len(small) > len(text) * 1.9
        if bits < 15:
            assert len(codec(Deflate(mem_level=9)).compress(text + text)) < len(text) * 1.5

    def test_a_higher_level_compresses_to_fewer_bytes(self) -> None:
        text = bytes(range(97, 123)) * 40
        stored, fast, best = (len(codec(Deflate(level=level)).compress(text)) for level in (0, 1, 9))
        assert best <= fast < len(text) < stored

    def test_a_compressor_is_made_when_needed_and_freed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[str] = []

        class Counting:
            def __getattr__(self, name: str) -> Any:
                if name.endswith("obj"):
                    made.append(name)
                return getattr(zlib, name)

        monkeypatch.setattr(deflate, "zlib", Counting())
        monkeypatch.setattr(compressor, "zlib", Counting())
        # A compressor that another test left would not be made here.
        compressor._idle.clear()
        kept, alone = codec(), codec(BOTH_ALONE)
        assert made == []
        for _ in range(3):
            kept.compress(b"hello")
        assert made == ["compressobj"]
        inflate(kept, HELLO)
        inflate(kept, HELLO)
        assert made == ["compressobj", "decompressobj"]
        for _ in range(2):
            assert alone.compress(b"hello") == HELLO
            # No public name shows that the contexts are freed.
            assert alone._compressor is None
            inflate(alone, HELLO)
            # As above.
            assert alone._inflater is None
        assert codec(BOTH_ALONE).compress(b"hello") == HELLO
        assert made[2:] == ["compressobj", "decompressobj", "decompressobj"]


class TestInflating:
    """RFC 7692 §7.2.2: compressed bytes to messages, up to a limit."""

    @pytest.mark.parametrize(
        ("payload", "message"),
        [
            (HELLO, b"hello"),
            (HELLO_FINAL, b"Hello"),
            # Sent without the byte of RFC 7692 §7.2.3.4.
            (HELLO_FINAL[:-1], b"Hello"),
            # RFC 7692 §7.2.3.3, §7.2.3.5.
            (bytes.fromhex("000500faff48656c6c6f00"), b"Hello"),
            (bytes.fromhex("f248050000 00ffffcac9c90700"), b"Hello"),
            (b"\0", b""),
            # As Beast for bytes that are no DEFLATE data.
            (b"", b""),
        ],
    )
    def test_every_payload_is_inflated(self, payload: bytes, message: bytes) -> None:
        receiver = codec()
        for _ in range(3):
            assert inflate(receiver, payload) == message
            assert inflate(receiver, *octets(payload), b"") == message
        assert inflate(receiver, HELLO) == b"hello"

    def test_an_empty_block_at_the_end_is_accepted(self) -> None:
        assert inflate(codec(), HELLO + TAIL) == b"hello"

    def test_data_after_a_final_block_is_inflated(self) -> None:
        receiver = codec()
        assert inflate(receiver, HELLO_FINAL[:-1] + HELLO_FINAL[:-1] + HELLO) == b"HelloHellohello"
        # The stream that ended is not referred to; the one that goes on is.
        assert inflate(receiver, HELLO_AGAIN) == b"hello"
        assert inflate(receiver, HELLO_FINAL) == b"Hello"
        with pytest.raises(errors.BadDeflate):
            inflate(receiver, HELLO_AGAIN)

    def test_a_final_block_may_end_with_a_part(self) -> None:
        assert inflate(codec(), HELLO_FINAL[:-1], HELLO_FINAL[:-1], b"\0") == b"HelloHello"

    def test_the_context_is_kept_between_messages(self) -> None:
        receiver = codec()
        assert [inflate(receiver, each) for each in (HELLO, HELLO_AGAIN, b"\0", HELLO_AGAIN)] == [
            b"hello",
            b"hello",
            b"",
            b"hello",
        ]
        receiver = codec(Deflate(client_no_context_takeover=True))
        assert inflate(receiver, HELLO) == b"hello"
        with pytest.raises(errors.BadDeflate):
            inflate(receiver, HELLO_AGAIN)

    @pytest.mark.parametrize("bits", range(8, 16))
    def test_a_message_of_a_smaller_window_is_inflated(self, bits: int) -> None:
        text = noise(1 << bits - 1)
        agreed = Negotiated("", server_max_window_bits=bits, client_max_window_bits=15, **dict.fromkeys(
            ("server_no_context_takeover", "client_no_context_takeover"), False))  # fmt: skip
        receiver = PerMessageDeflate(agreed, DEFAULTS, server=False)
        for payload in deflated(text, text, text, bits=max(bits, 9)):
            assert inflate(receiver, payload) == text

    @pytest.mark.parametrize("garbage", [b"\x07", b"\xff\xff", b"nonsense", b"\x01\0\0\0\0", HELLO_AGAIN])
    def test_garbage_is_refused(self, garbage: bytes) -> None:
        for parts in ([garbage], [*octets(garbage), b""]):
            with pytest.raises(errors.BadDeflate):
                inflate(codec(), *parts)

    @pytest.mark.parametrize("size", [1, 5, 257, 258, 259, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE, 1 << 20])
    @pytest.mark.parametrize("make", [bytes, noise, lambda size: b"ab" * (size // 2) + b"c" * (size % 2)])
    def test_the_limit_is_exact(self, size: int, make: Callable[[int], bytes]) -> None:
        message = make(size)
        (payload,) = deflated(message)
        middle = len(payload) // 2
        for parts in ([payload], [payload, b""], [payload[:middle], payload[middle:]], [b"", *octets(payload)[:5000]]):
            whole = b"".join(parts) == payload
            for room in (size, size + 1):
                receiver = codec()
                if whole:
                    assert inflate(receiver, *parts, room=room) == message
                    assert inflate(receiver, *deflated(b"next")) == b"next"
            if whole:
                with pytest.raises(errors.MessageTooBig):
                    inflate(codec(), *parts, room=size - 1)

    def test_a_message_without_room_is_refused(self) -> None:
        assert inflate(codec(), b"\0", room=0) == b""
        with pytest.raises(errors.MessageTooBig):
            inflate(codec(), HELLO, room=0)

    @given(st.binary(max_size=300), st.integers(0, 40))
    def test_any_payload_is_inflated_within_the_room_or_is_refused(self, payload: bytes, room: int) -> None:
        with suppress(errors.BadDeflate, errors.MessageTooBig):
            assert len(inflate(codec(), payload, room=room)) <= room

    def test_the_time_of_many_final_blocks_is_bounded(self) -> None:
        began = time.process_time()
        assert inflate(codec(), b"\x03\x00" * (1 << 15)) == b""
        assert time.process_time() - began < 2


MESSAGES = st.one_of(
    st.text(max_size=60),
    st.binary(max_size=60),
    st.builds(lambda text, times: text * times, st.text(max_size=10), st.integers(0, 400)),
    st.builds(noise, st.sampled_from([125, 126, 4096, 40_000, 70_000])),
    st.builds(bytes, st.sampled_from([125, 126, 65535, 65536, SLICE * 3])),
)


@given(OPTIONS, st.booleans(), st.lists(st.binary(max_size=2000) | st.builds(bytes, st.just(SLICE)), max_size=6))
def test_a_round_trip_over_both_ends_returns_each_message(
    options: Deflate, server: bool, messages: list[bytes]
) -> None:
    sender, receiver = codec(options, server), codec(options, not server)
    for message in messages:
        assert inflate(receiver, sender.compress(message), room=len(message)) == message


# The session.


class Recorder(peer.Recorder):
    """As the plain one, with compression agreed on by both ends' having ``options``."""

    session: Session

    def __init__(
        self, server: bool = True, limits: Limits | None = None, *args: Any, options: Deflate = DEFAULTS, **more: Any
    ) -> None:
        super().__init__(server, limits, *args, **more)
        plain = self.session
        self.deflate = codec(options, server)
        self.session = Session(server, self, self, self.now, limits or Limits(), self.deflate)
        self.session.deliver_to(plain.reader.on_text, plain.reader.on_binary)
        if plain.assembler.on_fragment is not None:
            self.session.stream_to(plain.assembler.on_fragment)


def compressed(payload: bytes, opcode: int = TEXT, fin: bool = True) -> Frame:
    return Frame(opcode, payload, fin, rsv=4)


def fragmented(payload: bytes, *places: int, opcode: int = TEXT) -> list[Frame]:
    """A compressed message in frames that end at ``places``."""
    parts = [payload[start:end] for start, end in zip([0, *places], [*places, len(payload)], strict=True)]
    frames = [Frame(CONTINUATION, part, fin=False) for part in parts]
    frames[0] = Frame(opcode, parts[0], fin=False, rsv=4)
    frames[-1] = frames[-1]._replace(fin=True)
    return frames


def close(code: int) -> list[Frame]:
    return [Frame(CLOSE, code.to_bytes(2, "big"))]


HELLO_TEXT: list[Event] = [("text", "hello")]
FRAMES_RECEIVED: dict[str, tuple[list[Frame], list[Event], type[Exception] | None, list[Frame]]] = {
    "compressed 'hello'": ([compressed(HELLO)], HELLO_TEXT, None, []),
    "compressed 'hello' in two frames": (fragmented(HELLO, 3), HELLO_TEXT, None, []),
    "the same, rsv1 on the second too": (
        [compressed(HELLO[:3], fin=False), compressed(HELLO[3:], CONTINUATION)],
        [],
        errors.BadReservedBits,
        close(1002),
    ),
    "ping between the two": (
        [fragmented(HELLO, 3)[0], Frame(PING, b"p"), fragmented(HELLO, 3)[1]],
        [("ping", b"p"), *HELLO_TEXT],
        None,
        [Frame(PONG, b"p")],
    ),
    "uncompressed 'hello'": ([Frame(TEXT, b"hello")], HELLO_TEXT, None, []),
    "compressed, no payload": ([compressed(b"")], [("text", "")], None, []),
    "compressed, payload 00": ([compressed(b"\0")], [("text", "")], None, []),
    "compressed, empty block kept at the end": ([compressed(HELLO + TAIL)], HELLO_TEXT, None, []),
    "rsv1 on a ping": ([compressed(b"", PING)], [], errors.BadReservedBits, close(1002)),
    # Beast drops the connection without a word.
    "not deflate data": ([compressed(b"\xff\xff")], [], errors.BadDeflate, close(1007)),
    "compressed text that is not UTF-8": (
        [compressed(deflated(b"\xff\xfe")[0])],
        [],
        errors.BadFramePayload,
        close(1007),
    ),
    "inflates beyond the limit": ([compressed(deflated(bytes(17))[0])], [], errors.MessageTooBig, close(1009)),
    # Not in Beast's table.
    "inflates to the limit": ([compressed(deflated(b"x" * 16)[0])], [("text", "x" * 16)], None, []),
    "over the limit in three frames": (
        fragmented(deflated(noise(17))[0], 1, 17, opcode=BINARY),
        [],
        errors.MessageTooBig,
        close(1009),
    ),
    "two messages within the limit": (
        [compressed(each) for each in deflated(b"x" * 16, b"y" * 16)],
        [("text", "x" * 16), ("text", "y" * 16)],
        None,
        [],
    ),
    "an uncompressed one between two that share their context": (
        [compressed(HELLO), Frame(TEXT, b"hallo"), compressed(HELLO_AGAIN)],
        [("text", "hello"), ("text", "hallo"), ("text", "hello")],
        None,
        [],
    ),
    "an uncompressed one in two frames behind a compressed one": (
        [compressed(HELLO), Frame(TEXT, b"hal", fin=False), Frame(CONTINUATION, b"lo"), compressed(HELLO_AGAIN)],
        [("text", "hello"), ("text", "hallo"), ("text", "hello")],
        None,
        [],
    ),
    "all of it in the first of two frames": (
        [compressed(HELLO, fin=False), Frame(CONTINUATION)],
        HELLO_TEXT,
        None,
        [],
    ),
    "a block that ends its stream": ([compressed(HELLO_FINAL)] * 2, [("text", "Hello")] * 2, None, []),
    "rsv1 on a continuation alone": (
        [Frame(TEXT, b"hel", fin=False), compressed(b"lo", CONTINUATION)],
        [],
        errors.BadReservedBits,
        close(1002),
    ),
    "rsv2": ([Frame(TEXT, HELLO, rsv=2)], [], errors.BadReservedBits, close(1002)),
    "rsv1 and rsv3": ([Frame(TEXT, HELLO, rsv=5)], [], errors.BadReservedBits, close(1002)),
    "rsv1 on a close": ([compressed(b"", CLOSE)], [], errors.BadReservedBits, close(1002)),
}


class TestReceiving:
    """RFC 7692 §6.2 and §7.2.2: compressed messages that a session receives."""

    @pytest.mark.parametrize("name", FRAMES_RECEIVED)
    def test_compressed_frames_are_received_as_beast_does(self, name: str, server: bool) -> None:
        """Beast's table, with a limit of 16 bytes; in one chunk and byte by byte."""
        frames, events, error, sent = FRAMES_RECEIVED[name]
        if error is not None:
            events = [*events, ("ended",)]
        wire = to(server, *frames)
        for chunks in ([wire], octets(wire)):
            recorder = Recorder(server, Limits(max_message_size=16)).feed(*chunks)
            assert (recorder.events, recorder.error, recorder.sent) == (events, error, sent)

    def test_a_compressed_frame_is_refused_without_an_agreement(self, server: bool) -> None:
        recorder = peer.Recorder(server).receive(compressed(HELLO))
        assert (recorder.error, recorder.sent) == (errors.BadReservedBits, close(1002))

    def test_the_error_names_the_limit(self, server: bool) -> None:
        recorder = Recorder(server, Limits(max_message_size=16)).receive(compressed(bomb(17)))
        assert "max_message_size is 16" in str(recorder.session.closing.error)

    def test_the_frame_size_limits_the_compressed_bytes(self, server: bool) -> None:
        (payload,) = deflated(bytes(10_000))
        for limit, error in ((len(payload), None), (len(payload) - 1, errors.MessageTooBig)):
            recorder = Recorder(server, Limits(max_frame_size=limit)).receive(compressed(payload, BINARY))
            assert recorder.error is error

    def test_a_message_of_any_size_is_inflated_without_a_limit(self, server: bool) -> None:
        recorder = Recorder(server, Limits(max_message_size=None)).receive(compressed(bomb(3_000_000), BINARY))
        assert recorder.events == [("binary", bytes(3_000_000))]

    @pytest.mark.parametrize("limit", [1 << 20, SLICE, 1000])
    def test_the_limit_is_exact_for_a_message_in_fragments(self, limit: int, server: bool) -> None:
        for message in (bytes(limit), noise(limit)):
            for more in (-1, 0, 1):
                octets_sent = (message + b"x")[: limit + more]
                (payload,) = deflated(octets_sent)
                frames = fragmented(payload, 1, len(payload) // 2, len(payload) - 1, opcode=BINARY)
                recorder = Recorder(server, Limits(max_message_size=limit)).receive(*frames)
                if more == 1:
                    assert recorder.error is errors.MessageTooBig
                else:
                    assert recorder.events == [("binary", octets_sent)]

    def test_a_bomb_is_refused_before_memory_is_spent(self, server: bool) -> None:
        wire = to(server, compressed(bomb(1 << 30), BINARY))
        assert len(wire) < 1 << 21
        for streaming in (False, True):
            recorder = Recorder(server, Limits(max_message_size=1 << 20), lambda *_: None, streaming=streaming)
            recorder.note = lambda *event: None  # type: ignore[method-assign]
            tracemalloc.start()
            try:
                for at in range(0, len(wire), 1 << 16):
                    recorder.feed(wire[at : at + (1 << 16)])
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert (recorder.error, recorder.sent) == (errors.MessageTooBig, close(1009))
            assert peak < (2 << 20 if not streaming else 1 << 19)

    def test_a_text_that_cannot_be_utf8_is_refused_at_once(self, server: bool) -> None:
        (payload,) = deflated(b"\xff" + noise(100))
        wire = to(server, compressed(payload))
        recorder = Recorder(server).feed(wire[:-50])
        assert recorder.error is errors.BadFramePayload

    def test_text_within_the_limit_is_checked_before_the_limit_fails(self, server: bool) -> None:
        wire = to(server, compressed(deflated(b"\xff" + noise(100))[0]))
        for chunks in ([wire], octets(wire)):
            recorder = Recorder(server, Limits(max_message_size=16)).feed(*chunks)
            assert recorder.error is errors.BadFramePayload

    def test_a_character_may_be_cut_by_pieces(self, server: bool) -> None:
        text = "a" + "€" * SLICE
        recorder = Recorder(server).receive(compressed(deflated(text.encode())[0]))
        assert recorder.events == [("text", text)]

    def test_a_compressed_message_of_a_kind_without_a_hook_is_refused(self, server: bool) -> None:
        recorder = Recorder(server, text=False).receive(compressed(HELLO))
        assert recorder.error is errors.UnacceptableData

    def test_compressed_frames_after_our_close_are_discarded(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.close(1000)
        recorder.receive(compressed(b"\xff\xff"), *fragmented(bomb(1 << 21), 5), Frame(TEXT, b"x"), *close(1000))
        assert recorder.session.closing.clean
        assert recorder.error is None
        assert recorder.events == [("ended",)]

    def test_our_close_within_a_message_is_clean(self, server: bool) -> None:
        first, last = fragmented(HELLO, 3)
        recorder = Recorder(server).receive(first)
        recorder.session.close(1000)
        recorder.receive(last, compressed(HELLO), *close(1000))
        assert (recorder.events, recorder.session.closing.clean) == ([("ended",)], True)


class TestStreaming:
    """RFC 7692 §7.2.2: a compressed message that is delivered in pieces."""

    def test_each_piece_is_at_most_a_slice(self, server: bool) -> None:
        size = 10 * SLICE + 5
        recorder = Recorder(server, streaming=True).receive(compressed(bomb(size), BINARY), compressed(HELLO[:]))
        pieces = [event for event in recorder.events if event[2] == BINARY]
        assert b"".join(data for _, data, _, _ in pieces) == bytes(size)
        assert all(data and len(data) <= SLICE for _, data, _, _ in pieces)
        assert [final for *_, final in pieces] == [False] * (len(pieces) - 1) + [True]

    def test_a_message_may_end_with_a_full_piece(self, server: bool) -> None:
        recorder = Recorder(server, streaming=True).receive(compressed(bomb(2 * SLICE), BINARY))
        assert b"".join(event[1] for event in recorder.events) == bytes(2 * SLICE)
        assert [event[3] for event in recorder.events].count(True) == 1
        assert recorder.events[-1][3]

    def test_an_empty_message_is_one_empty_piece(self, server: bool) -> None:
        recorder = Recorder(server, streaming=True).receive(compressed(b"\0"), compressed(b""))
        assert recorder.events == [("piece", b"", TEXT, True)] * 2

    def test_a_pause_keeps_the_rest_of_a_part(self, server: bool) -> None:
        """No piece and no later message is delivered while paused; control frames' answers leave meanwhile."""

        def pause(recorder: peer.Recorder, event: Event) -> None:
            if event[0] == "piece":
                recorder.session.pause()

        size = 3 * SLICE + 5
        recorder = Recorder(server, None, pause, streaming=True)
        recorder.receive(compressed(bomb(size), BINARY), Frame(PING, b"p"), Frame(TEXT, b"hello"))
        counts = []
        while recorder.session.paused:
            counts.append(len(recorder.events))
            recorder.session.resume()
        assert counts == [1, 2, 3, 4, 6]
        pieces = [event for event in recorder.events if event[0] == "piece"]
        assert b"".join(event[1] for event in pieces[:-1]) == bytes(size)
        assert [event[3] for event in pieces] == [False, False, False, True, True]
        assert recorder.events[4:] == [("ping", b"p"), ("piece", b"hello", TEXT, True)]
        assert recorder.sent == [Frame(PONG, b"p")]

    def test_bytes_that_come_during_a_pause_are_kept(self, server: bool) -> None:
        wire = to(server, compressed(bomb(3 * SLICE), BINARY), Frame(TEXT, b"hello"))
        whole = Recorder(server, streaming=True).feed(wire).events

        def pause(recorder: peer.Recorder, event: Event) -> None:
            recorder.session.pause()

        recorder = Recorder(server, None, pause, streaming=True)
        for octet in octets(wire):
            recorder.feed(octet)
        while recorder.session.paused:
            recorder.session.resume()
        assert joined(recorder.events) == joined(whole)

    def test_an_error_after_a_pause_is_found_on_resuming(self, server: bool) -> None:
        recorder = Recorder(
            server, Limits(max_message_size=2 * SLICE), lambda it, event: it.session.pause(), streaming=True
        )
        recorder.receive(compressed(bomb(3 * SLICE), BINARY))
        while recorder.session.paused:
            assert recorder.error is None
            recorder.session.resume()
        assert (recorder.error, recorder.sent) == (errors.MessageTooBig, close(1009))

    @pytest.mark.parametrize("paused", [False, True])
    def test_a_close_between_pieces_is_clean(self, paused: bool, server: bool) -> None:
        def leave(recorder: peer.Recorder, event: Event) -> None:
            if event[0] == "piece":
                if paused:
                    recorder.session.pause()
                recorder.session.close(1000)

        recorder = Recorder(server, Limits(max_message_size=2 * SLICE), leave, streaming=True)
        recorder.receive(compressed(bomb(9 * SLICE), BINARY), Frame(TEXT, b"hello"), *close(1000))
        assert [event[0] for event in recorder.events] == ["piece", "ended"]
        assert recorder.session.closing.clean
        assert recorder.error is None

    def test_a_close_during_a_pause_is_clean(self, server: bool) -> None:
        recorder = Recorder(server, None, lambda it, event: it.session.pause(), streaming=True)
        recorder.receive(compressed(bomb(5 * SLICE), BINARY), Frame(TEXT, b"hello"), *close(1000))
        recorder.session.close(1000)
        assert [event[0] for event in recorder.events] == ["piece", "ended"]
        assert recorder.session.closing.clean

    def test_a_hook_that_fails_between_pieces_ends_the_session(self, server: bool) -> None:
        def fail(recorder: peer.Recorder, event: Event) -> None:
            raise ZeroDivisionError

        recorder = Recorder(server, None, fail, streaming=True)
        recorder.receive(compressed(bomb(5 * SLICE), BINARY), Frame(TEXT, b"hello"))
        assert [event[0] for event in recorder.events] == ["piece", "raised", "ended"]
        assert recorder.sent == close(1011)

    def test_a_loss_between_pieces_ends_the_session(self, server: bool) -> None:
        recorder = Recorder(server, None, lambda it, event: it.session.lost(), streaming=True)
        recorder.receive(compressed(bomb(5 * SLICE), BINARY), Frame(TEXT, b"hello"))
        assert [event[0] for event in recorder.events] == ["piece", "ended"]


def joined(events: list[Event]) -> list[Event]:
    """``events`` with the pieces of each message put together, for how it was cut depends on the chunks."""
    whole: list[Event] = []
    gathered = b""
    for event in events:
        if event[0] == "piece":
            gathered += event[1]
            if not event[3]:
                continue
            event, gathered = ("message", gathered, event[2]), b""
        whole.append(event)
    return whole


class TestSending:
    """RFC 7692 §6.1 and §7.2.1: compressed messages that a session sends."""

    def send(self, server: bool, options: Deflate = DEFAULTS) -> Recorder:
        return Recorder(server, options=options)

    def test_messages_are_compressed_as_in_beasts_table(self, server: bool) -> None:
        recorder = self.send(server)
        for text in ("", "hello", "hello"):
            recorder.session.sender.send_text(text)
        assert recorder.sent == [compressed(b"\0"), compressed(HELLO), compressed(HELLO_AGAIN)]
        # Beast cuts its compressed bytes at its write buffer's size; here a message is a frame.
        data = noise(300)
        recorder = self.send(server)
        recorder.session.sender.send_binary(data)
        (frame,) = recorder.sent
        assert (frame.opcode, frame.fin, frame.rsv) == (BINARY, True, 4)
        assert zlib.decompressobj(-15).decompress(frame.payload + TAIL) == data

    def test_the_sent_bytes_are_fixed(self) -> None:
        recorder = self.send(True)
        for text in ("", "hello", "hello"):
            recorder.session.sender.send_text(text)
        assert recorder.wire == bytes.fromhex("c10100 c107ca48cdc9c90700 c105ca00110000")

    def test_a_message_below_the_threshold_is_not_compressed(self, server: bool) -> None:
        recorder = self.send(server, Deflate(threshold=5))
        for text in ("hell", "hello"):
            recorder.session.sender.send_text(text)
        # The threshold counts bytes, not characters.
        recorder.session.sender.send_text("€€")
        recorder.session.sender.send_binary(b"hell")
        assert [(frame.rsv, frame.opcode) for frame in recorder.sent] == [(0, TEXT), (4, TEXT), (4, TEXT), (0, BINARY)]
        assert recorder.sent[1] == compressed(HELLO)

    def test_the_caller_can_choose_compression(self, server: bool) -> None:
        recorder = self.send(server, Deflate(threshold=5))
        recorder.session.sender.send_message(FIN_TEXT, b"hello", False)
        recorder.session.sender.send_message(FIN_TEXT, b"hell", True)
        recorder.session.sender.send_message(FIN_BINARY, b"hell", None)
        assert [frame.rsv for frame in recorder.sent] == [0, 4, 0]
        assert recorder.sent[0] == Frame(TEXT, b"hello")

    def test_a_choice_without_an_agreement_is_ignored(self, server: bool) -> None:
        recorder = peer.Recorder(server)
        for compress in (None, False, True):
            recorder.session.sender.send_message(FIN_TEXT, b"hello", compress)
        assert recorder.sent == [Frame(TEXT, b"hello")] * 3

    def test_an_uncompressed_message_leaves_the_context(self, server: bool) -> None:
        recorder = self.send(server)
        for compress in (True, False, True):
            recorder.session.sender.send_message(FIN_TEXT, b"hello", compress)
        assert [frame.payload for frame in recorder.sent] == [HELLO, b"hello", HELLO_AGAIN]

    def test_control_frames_are_not_compressed(self, server: bool) -> None:
        recorder = self.send(server)
        recorder.session.ping(b"hello")
        recorder.session.pong(b"hello")
        recorder.session.close(1000, "hello")
        assert [frame.rsv for frame in recorder.sent] == [0, 0, 0]
        assert recorder.sent[0] == Frame(PING, b"hello")

    def test_a_message_after_a_close_is_not_compressed(self, server: bool) -> None:
        recorder = self.send(server)
        recorder.session.close(1000)
        for send in (
            recorder.session.sender.send_text,
            lambda text: recorder.session.sender.send_binary(text.encode()),
        ):
            with pytest.raises(errors.ConnectionClosed):
                send("hello")
        assert recorder.deflate.compress(b"hello") == HELLO

    def test_compressed_echoes_of_a_chunk_are_gathered(self, server: bool) -> None:
        def echo(recorder: peer.Recorder, event: Event) -> None:
            recorder.session.sender.send_text(event[1])

        recorder = Recorder(server, None, echo).receive(compressed(HELLO), compressed(HELLO_AGAIN))
        assert len(recorder.writes) == 1
        assert recorder.sent == [compressed(HELLO), compressed(HELLO_AGAIN)]

    def test_no_later_message_refers_to_a_refused_one(self, server: bool) -> None:
        recorder = self.send(server)
        take = recorder.write

        def refuse(data: bytes | LongFrame) -> None:
            raise errors.BufferFull("full")

        recorder.session.sender.send_text("hello")
        recorder.write = refuse  # type: ignore[method-assign]
        with pytest.raises(errors.BufferFull):
            recorder.session.sender.send_text("goodbye")
        recorder.write = take  # type: ignore[method-assign]
        recorder.session.sender.send_text("goodbye")
        receiver = codec(server=not server)
        assert [inflate(receiver, frame.payload) for frame in recorder.sent] == [b"hello", b"goodbye"]

    @pytest.mark.parametrize("policy", ["drop", "pause", "close"])
    def test_no_later_message_refers_to_one_that_may_be_dropped(self, policy: Any, server: bool) -> None:
        recorder = Recorder(server, Limits(slow_reader=policy))
        for free in (True, False, False, True, True):
            recorder.free = free
            recorder.session.sender.send_text("hello")
        lengths = [len(frame.payload) for frame in recorder.sent]
        assert lengths == ([7, 5, 7, 7, 5] if policy == "drop" else [7, 5, 4, 4, 4])
        if policy == "drop":
            # Whichever of those that waited are gone, the others can be read.
            for gone in ([], [1], [2], [1, 2]):
                receiver = codec(server=not server)
                left = [frame for at, frame in enumerate(recorder.sent) if at not in gone]
                assert [inflate(receiver, frame.payload) for frame in left] == [b"hello"] * len(left)


PARTS = st.binary(max_size=50) | st.sampled_from([bytes(SLICE), noise(SLICE)])


class TestStreamingOut:
    """RFC 7692 §6.1 and §7.2.1: the frames of a message that is written in parts are one compressed whole."""

    def test_one_frame_is_made_of_small_parts(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.sender.begin_message(TEXT)
        for part in (b"hel", b"", b"lo"):
            recorder.session.sender.write_part(part)
        assert recorder.sent == []
        recorder.session.sender.end_message()
        # As Beast, of which nothing leaves before the end either.
        assert recorder.sent == [compressed(HELLO)]
        recorder.session.sender.send_text("hello")
        assert recorder.sent[1:] == [compressed(HELLO_AGAIN)]

    def test_an_empty_stream_is_an_empty_message(self, server: bool) -> None:
        recorder = Recorder(server)
        for parts in ([], [b""]):
            recorder.session.sender.begin_message(BINARY)
            for part in parts:
                recorder.session.sender.write_part(part)
            recorder.session.sender.end_message()
        assert recorder.sent == [compressed(b"\0", BINARY)] * 2

    @pytest.mark.parametrize("compress", [None, True, False])
    def test_long_parts_are_received_whole(self, compress: bool | None, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.sender.begin_message(BINARY, compress)
        parts = [noise(size) for size in (100_000, 1, 70_000)]
        for part in parts:
            recorder.session.sender.write_part(part)
            recorder.session.ping(b"between")
        recorder.session.sender.send_text("behind")
        recorder.session.sender.end_message()
        frames = [frame for frame in recorder.sent if frame.opcode != PING]
        assert [frame.rsv for frame in frames] == [0 if compress is False else 4] + [0] * (len(frames) - 2) + [4]
        assert [frame.fin for frame in frames] == [False] * (len(frames) - 2) + [True, True]
        receiver = Recorder(not server).receive(*recorder.sent)
        messages = [event for event in receiver.events if event[0] != "ping"]
        assert messages == [("binary", b"".join(parts)), ("text", "behind")]

    def test_a_refused_part_can_be_tried_again(self, server: bool) -> None:
        recorder = Recorder(server)
        admit = recorder.admits_part

        def refuse(size: int) -> None:
            raise errors.BufferFull("full")

        first, second = noise(5000), noise(5001)
        recorder.session.sender.begin_message(BINARY)
        recorder.session.sender.write_part(first)
        recorder.admits_part = refuse  # type: ignore[method-assign]
        for _ in range(3):
            with pytest.raises(errors.BufferFull):
                recorder.session.sender.write_part(second)
        recorder.admits_part = admit  # type: ignore[method-assign]
        recorder.session.sender.write_part(second)
        recorder.admits_part = refuse  # type: ignore[method-assign]
        # A part that zlib holds back is not refused: the message would be lost.
        recorder.session.sender.end_message()
        receiver = Recorder(not server).receive(*recorder.sent)
        assert receiver.events == [("binary", first + second)]

    def test_the_rest_is_sent_after_the_parts(self, server: bool) -> None:
        recorder = Recorder(server)
        for parts, rest in (([b"hel"], b"lo"), ([], b"hello"), ([b"hello"], b"")):
            recorder.session.sender.begin_message(TEXT)
            for part in parts:
                recorder.session.sender.write_part(part)
            recorder.session.sender.end_message(rest)
        assert Recorder(not server).feed(recorder.wire).events == HELLO_TEXT * 3

    @pytest.mark.parametrize("policy", ["drop", "close"])
    def test_a_held_message_may_still_be_dropped(self, policy: Any, server: bool) -> None:
        recorder = Recorder(server, Limits(slow_reader=policy))
        recorder.session.sender.begin_message(TEXT, False)
        recorder.session.sender.send_text("hello")
        recorder.session.sender.send_text("hello")
        recorder.free = False
        recorder.session.sender.end_message()
        assert [len(frame.payload) for frame in recorder.sent] == ([0, 7, 7] if policy == "drop" else [0, 7, 5])

    # Gathered, written alone, and in fragments.
    @pytest.mark.parametrize("size", [10, 100_000, 1 << 19])
    def test_a_message_sent_during_a_stream_is_sent_after_it(self, size: int, server: bool) -> None:
        """It refers to the other message, and leaves after it."""
        messages = [noise(size), b"gathered", noise(size + 1), noise(size + 1)[-1000:], noise(size) + b"last"]

        class Reentrant(Recorder):
            def write(self, data: bytes | LongFrame) -> None:
                super().write(data)
                if inner:
                    self.free = False
                    self.session.sender.send_binary(inner.pop())

        def react(recorder: peer.Recorder, event: Event) -> None:
            for message in messages[1:3]:
                recorder.session.sender.send_binary(message)

        inner: list[bytes] = []
        recorder = Reentrant(server, react=react)
        recorder.session.sender.send_binary(messages[0])
        inner.append(messages[3])
        recorder.receive(Frame(TEXT))
        recorder.session.sender.send_binary(messages[4])
        received = Recorder(not server).feed(recorder.wire).events
        assert sorted(received) == sorted(("binary", message) for message in messages)

    def test_a_close_within_a_stream_is_sent_and_ends_it(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.sender.begin_message(TEXT)
        recorder.session.sender.write_part(b"hel")
        recorder.session.close(1000)
        late_inputs: list[Callable[[], None]] = [
            lambda: recorder.session.sender.write_part(b"l"),
            recorder.session.sender.end_message,
        ]
        for more in late_inputs:
            with pytest.raises(errors.ConnectionClosed):
                more()
        assert recorder.sent == close(1000)

    @given(st.booleans(), OPTIONS, st.lists(st.lists(PARTS, max_size=5), max_size=4))
    def test_any_parts_are_received_as_their_message(
        self, server: bool, options: Deflate, messages: list[list[bytes]]
    ) -> None:
        sender, receiver = Recorder(server, options=options), Recorder(not server, options=options)
        for parts in messages:
            sender.session.sender.begin_message(BINARY)
            for part in parts:
                sender.session.sender.write_part(part)
            sender.session.sender.end_message()
        receiver.feed(sender.wire)
        assert receiver.events == [("binary", b"".join(parts)) for parts in messages]


# Everything at once: two sessions that speak with each other.

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), MESSAGES, st.sampled_from([None, True, False])),
        st.tuples(st.just("ping"), st.binary(max_size=125)),
        st.tuples(st.just("parts"), MESSAGES, st.lists(st.floats(0, 1), max_size=4), st.booleans()),
    ),
    max_size=8,
)


def cut_into_frames(frame: Frame, places: list[float], pings: bool) -> list[Frame]:
    """A message's frame as several, pings between them."""
    size = len(frame.payload)
    ends = sorted(round(place * size) for place in places)
    parts = [frame.payload[start:end] for start, end in zip([0, *ends], [*ends, size], strict=True)]
    frames = [Frame(CONTINUATION, part, fin=False) for part in parts]
    frames[0] = Frame(frame.opcode, parts[0], fin=False, rsv=frame.rsv)
    frames[-1] = frames[-1]._replace(fin=True)
    if pings:
        frames = [each for part in frames for each in (Frame(PING, b"between"), part)]
    return frames


@given(st.booleans(), OPTIONS, OPERATIONS, st.data())
def test_any_operations_in_any_chunks_are_received_in_both_roles(
    server: bool, options: Deflate, operations: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    """Whole and fragmented, compressed or not, control frames anywhere: the other end gets the messages, in order,
    for any cutting of the bytes."""
    sender = Recorder(server, options=options)
    frames: list[Frame] = []
    expected: list[Event] = []
    for operation in operations:
        if operation[0] == "ping":
            frames.append(Frame(PING, operation[1]))
            expected.append(("ping", operation[1]))
            continue
        message = operation[1]
        text = isinstance(message, str)
        before = len(sender.sent)
        compress = operation[2] if operation[0] == "send" else operation[3]
        sender.session.sender.send_message(
            FIN_TEXT if text else FIN_BINARY, message.encode() if text else message, compress
        )
        (frame,) = sender.sent[before:]
        pieces = [frame]
        if operation[0] == "parts":
            pieces = cut_into_frames(frame, operation[2], pings=len(operation[2]) % 2 == 1)
        frames += pieces
        expected += [("ping", b"between")] * sum(piece.opcode == PING for piece in pieces)
        expected.append(("text" if text else "binary", message))
    wire = to(not server, *frames)
    places = data.draw(st.lists(st.integers(0, len(wire)), max_size=30))
    receiver = Recorder(not server, options=options).feed(*peer.cut(wire, places))
    assert receiver.error is None
    assert receiver.events == expected
    streamed = Recorder(not server, options=options, streaming=True).feed(*peer.cut(wire, places))
    assert joined(streamed.events) == [
        event if event[0] == "ping" else ("message", *as_octets(event)) for event in expected
    ]


def as_octets(event: Event) -> tuple[bytes, int]:
    return (event[1].encode(), TEXT) if event[0] == "text" else (event[1], BINARY)


RECEIVED = st.lists(
    st.one_of(
        st.builds(
            Frame,
            st.sampled_from([TEXT, BINARY, PING, CONTINUATION]),
            st.binary(max_size=20),
            st.booleans(),
            st.just(0),
        ),
        st.tuples(
            st.sampled_from([TEXT, BINARY, CONTINUATION]),
            st.sampled_from([HELLO, HELLO_AGAIN, HELLO_FINAL, HELLO[:3], HELLO[3:], b"\0", b"", b"\xff", bomb(40)]),
            st.booleans(),
            st.sampled_from([0, 4]),
        ),
    ),
    max_size=8,
)


@given(st.booleans(), RECEIVED, st.lists(st.integers(0, 400), max_size=20), st.booleans())
def test_any_frames_have_the_same_outcome_in_any_chunks(
    server: bool, frames: list[tuple[Any, ...]], places: list[int], alone: bool
) -> None:
    wire = to(server, *frames)
    limits = Limits(max_message_size=30)
    options = BOTH_ALONE if alone else DEFAULTS
    whole = Recorder(server, limits, options=options).feed(wire)
    for chunks in (peer.cut(wire, places), octets(wire)):
        assert Recorder(server, limits, options=options).feed(*chunks).outcome == whole.outcome
