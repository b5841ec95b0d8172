"""The errors, and that the documentation lists each with its status or close code."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from twisted_beastws import errors
from twisted_beastws.wire.closing import may_be_sent
from twisted_beastws.wire.http import Response

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.WebSocketError) and value.__module__ == errors.__name__
]
DOCUMENTED = (Path(__file__).parents[1] / "docs" / "errors.md").read_text()


@pytest.mark.parametrize("error", CLASSES)
class TestEveryError:
    def test_is_documented(self, error: type[errors.WebSocketError]) -> None:
        row = f"| `{error.__name__}` | "
        if issubclass(error, errors.ProtocolError):
            row += f"{error.close_code} | "
        elif issubclass(error, errors.HandshakeError) and not issubclass(error, errors.UpgradeDeclined):
            row += f"{error.status} | "
        meaning = " ".join((inspect.getdoc(error) or "").split())
        assert meaning and row in DOCUMENTED and meaning in DOCUMENTED

    def test_is_of_one_family(self, error: type[errors.WebSocketError]) -> None:
        families = (errors.HandshakeError, errors.ProtocolError, errors.LocalError, errors.ConnectionClosed)
        assert error is errors.WebSocketError or sum(issubclass(error, family) for family in families) == 1

    def test_names_a_code_that_can_be_sent(self, error: type[errors.WebSocketError]) -> None:
        if issubclass(error, errors.ProtocolError):
            assert may_be_sent(error.close_code)
        if issubclass(error, errors.HandshakeError):
            assert 400 <= error.status <= 599


def test_a_declined_upgrade_tells_the_answer_without_its_control_characters() -> None:
    response = Response(403, "No\twa\xffy" + "!" * 200, body=b"because")
    error = errors.UpgradeDeclined(response)
    assert error.status == 403 and error.response.body == b"because"
    assert str(error).startswith("The WebSocket handshake was declined: 403 No\\twa\\xffy!") and len(str(error)) < 140
