"""The line that the service logs about its codec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from twisted_beastws.service import codec
from twisted_beastws.wire.codec import PURE_VARIABLE

from ..support.log import as_observer


@pytest.fixture
def lines(logging: None) -> Iterator[list[tuple[Any, str]]]:
    """The events that were logged: level and text."""
    events: list[tuple[Any, str]] = []

    def observe(event: Any) -> None:
        events.append((event["log_level"], formatEvent(event)))

    globalLogPublisher.addObserver(as_observer(observe))
    yield events
    globalLogPublisher.removeObserver(as_observer(observe))


def test_the_compiled_codec_logs_nothing(lines: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "ACCELERATED", True)
    codec.report_codec()
    assert lines == []


def test_a_missing_compiler_is_one_warning_with_the_cost_and_the_cure(
    lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "ACCELERATED", False)
    monkeypatch.delenv(PURE_VARIABLE, raising=False)
    codec.report_codec()
    ((level, text),) = lines
    assert level is LogLevel.warn and "\n" not in text
    assert "The pure Python codec is in use" in text and "times the CPU time" in text and "gcc" in text


def test_the_chosen_pure_codec_is_one_line_with_the_variable(lines: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "ACCELERATED", False)
    monkeypatch.setenv(PURE_VARIABLE, "1")
    codec.report_codec()
    ((level, text),) = lines
    assert level is LogLevel.info and f"because {PURE_VARIABLE} is set" in text
