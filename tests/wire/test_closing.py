"""Tests of `twisted_beastws.wire.closing`."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_beastws.errors import BadCloseCode, BadClosePayload, BadCloseSize, LocalError
from twisted_beastws.wire.closing import (
    MAX_REASON,
    Close,
    CloseCode,
    CloseReason,
    close_payload,
    may_be_sent,
    parse_close,
)

SENDABLE = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


def test_a_close_frame_may_carry_exactly_the_codes_of_the_rfc() -> None:
    """RFC 6455 §7.4 and IANA's registry; Beast lets 5000-65535 in as well, and 1014 since Boost 1.92."""
    assert {code for code in range(-1, 65537) if may_be_sent(code)} == SENDABLE


def test_the_enum_has_exactly_the_registered_close_codes() -> None:
    assert {code.name: code.value for code in CloseCode} == {
        "NORMAL": 1000,
        "GOING_AWAY": 1001,
        "PROTOCOL_ERROR": 1002,
        "UNKNOWN_DATA": 1003,
        "NO_STATUS": 1005,
        "ABNORMAL": 1006,
        "BAD_PAYLOAD": 1007,
        "POLICY_ERROR": 1008,
        "TOO_BIG": 1009,
        "NEEDS_EXTENSION": 1010,
        "INTERNAL_ERROR": 1011,
        "SERVICE_RESTART": 1012,
        "TRY_AGAIN_LATER": 1013,
        "BAD_GATEWAY": 1014,
    }


class TestParse:
    """RFC 6455 §5.5.1 and §7.4: the payload of a received close frame."""

    @pytest.mark.parametrize(
        ("payload", "close"),
        [
            (b"", (1005, "")),
            (b"\x03\xe8", (1000, "")),
            (b"\x03\xe8bye", (1000, "bye")),
            (b"\x13\x87\xe2\x82\xac\xef\xbb\xbf\0", (4999, "\u20ac\ufeff\0")),
            (b"\x03\xf6", (1014, "")),
            (b"\x03\xe8" + b"r" * 123, (1000, "r" * 123)),
        ],
    )
    def test_a_valid_payload_is_parsed(self, payload: bytes, close: tuple[int, str]) -> None:
        assert parse_close(payload) == close
        assert type(parse_close(payload)) is Close

    @pytest.mark.parametrize("octet", [b"\0", b"\x03", b"\xff"])
    def test_a_payload_of_one_byte_is_refused(self, octet: bytes) -> None:
        with pytest.raises(BadCloseSize):
            parse_close(octet)

    @pytest.mark.parametrize("reason", [b"", b"reason", b"\xff"])
    def test_a_code_is_accepted_only_if_rfc_6455_allows_it(self, reason: bytes) -> None:
        def read(code: int) -> object:
            try:
                return parse_close(code.to_bytes(2, "big") + reason)
            except (BadCloseCode, BadClosePayload) as error:
                return type(error)

        for code in range(65536):
            if code not in SENDABLE:
                assert read(code) is BadCloseCode
            elif reason == b"\xff":
                assert read(code) is BadClosePayload
            else:
                assert read(code) == (code, reason.decode())

    @pytest.mark.parametrize("reason", ["ff", "eda080", "c080", "f4908080", "e282", "61e28262"])
    def test_a_reason_that_is_not_utf8_is_refused(self, reason: str) -> None:
        with pytest.raises(BadClosePayload):
            parse_close(b"\x03\xe8" + bytes.fromhex(reason))


class TestMake:
    """RFC 6455 §5.5.1 and §7.4: the payload of a close frame that we send."""

    @pytest.mark.parametrize(
        ("code", "reason", "payload"),
        [
            (1000, "", "03 e8"),
            (CloseCode.NORMAL, "bye", "03 e8 62 79 65"),
            (1001, "away", "03 e9 61 77 61 79"),
            (1014, "", "03 f6"),
            (4321, "", "10 e1"),
            (4999, "\u20ac", "13 87 e2 82 ac"),
            (1005, "", ""),
            (CloseCode.NO_STATUS, "left out", ""),
        ],
    )
    def test_the_payload_is_the_code_and_the_reason(self, code: CloseCode | int, reason: str, payload: str) -> None:
        assert close_payload(code, reason) == bytes.fromhex(payload)

    @pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1006, 1015, 1016, 2563, 2999, 5000, 65535, 65536])
    def test_a_code_that_may_not_be_sent_is_refused(self, code: int) -> None:
        with pytest.raises(LocalError, match=f"close code {code} may not be sent"):
            close_payload(code)

    @pytest.mark.parametrize("code", ["bye", b"", None, 1000.0])
    def test_a_code_of_another_type_is_refused(self, code: Any) -> None:
        with pytest.raises(LocalError) as refused:
            close_payload(code)
        assert str(refused.value) == f"{code!r} is no close code: the code comes first, as in close(1000, 'bye')"

    @pytest.mark.parametrize("reason", [b"bye", 1, None])
    @pytest.mark.parametrize("code", [1000, 1005])
    def test_a_reason_of_another_type_is_refused(self, code: int, reason: Any) -> None:
        with pytest.raises(LocalError, match="is no close reason: give str"):
            close_payload(code, reason)

    @pytest.mark.parametrize(
        ("reason", "kept"),
        [
            ("r" * 122, 122),
            ("r" * 123, 123),
            ("r" * 124, 123),
            ("r" * 100_000, 123),
            ("r" * 121 + "\u00e9", 123),
            ("r" * 122 + "\u00e9", 122),
            ("r" * 120 + "\U0001f600", 120),
            ("\u20ac" * 42, 123),
            ("\U0001f600" * 42, 120),
        ],
    )
    def test_a_long_reason_is_cut_between_characters(self, reason: str, kept: int) -> None:
        payload = close_payload(1000, reason)
        assert len(payload) == 2 + kept
        assert reason.encode().startswith(payload[2:])
        assert parse_close(payload) == (1000, payload[2:].decode())

    @given(st.sampled_from(sorted(SENDABLE)), st.text(max_size=200))
    def test_the_parser_reads_each_payload_back(self, code: int, reason: str) -> None:
        payload = close_payload(code, reason)
        read = parse_close(payload)
        assert read.code == code
        assert reason.startswith(read.reason)
        assert len(reason.encode()) > MAX_REASON or read.reason == reason
        assert len(payload) <= 125


class TestReason:
    """RFC 6455 §7.1.5 and §7.1.6: the code and the reason of a close."""

    def test_two_reasons_with_equal_fields_are_equal(self) -> None:
        reason = CloseReason(1000, "bye", True, "peer", Close(1000), Close(1000, "bye"))
        assert reason == CloseReason(1000, "bye", True, "peer", Close(1000), Close(1000, "bye"), None)
        with pytest.raises(dataclasses.FrozenInstanceError):
            reason.code = 1001  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("reason", "text"),
        [
            (
                CloseReason(1000, "bye", True, "peer", Close(1000), Close(1000, "bye")),
                "begun by peer, sent 1000, received 1000 'bye'",
            ),
            (CloseReason(1006, "", False, "transport"), "begun by transport, sent nothing, received nothing"),
            (
                CloseReason(1006, "", False, "local", Close(1011, "idle"), error=TimeoutError("silence")),
                "begun by local, sent 1011 'idle', received nothing (silence)",
            ),
        ],
    )
    def test_the_text_shows_code_reason_and_origin(self, reason: CloseReason, text: str) -> None:
        assert str(reason) == text
