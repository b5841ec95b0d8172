"""Tests of `twisted_beastws.errors`; the documentation must list each error with its status or close code."""

from __future__ import annotations

import inspect
from copy import copy
from pathlib import Path

import pytest
from twisted.internet.error import ConnectionClosed as TwistedConnectionClosed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from twisted_beastws import CloseReason, errors
from twisted_beastws.errors import ConnectionClosed, HandshakeTimeout
from twisted_beastws.wire.closing import may_be_sent
from twisted_beastws.wire.http import Response

CLASSES = [
    value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.WebSocketError) and not name.startswith("_")
]
DOCUMENTED = (Path(__file__).parents[1] / "docs" / "errors.md").read_text()


@pytest.mark.parametrize("error", CLASSES)
class TestEveryError:
    """Each error of `twisted_beastws.errors`."""

    def test_each_error_is_documented(self, error: type[errors.WebSocketError]) -> None:
        row = f"| `{error.__name__}` | "
        if issubclass(error, errors.ProtocolError):
            row += f"{error.close_code} | "
        elif issubclass(error, errors.HandshakeError) and not issubclass(error, errors.UpgradeDeclined):
            row += f"{error.status} | "
        meaning = " ".join((inspect.getdoc(error) or "").partition("\n\nAttributes:")[0].split())
        assert meaning and row in DOCUMENTED and meaning in DOCUMENTED

    def test_each_error_is_of_one_family(self, error: type[errors.WebSocketError]) -> None:
        families = (errors.HandshakeError, errors.ProtocolError, errors.LocalError, errors.ConnectionClosed)
        assert error is errors.WebSocketError or sum(issubclass(error, family) for family in families) == 1

    def test_each_error_has_a_code_that_can_be_sent(self, error: type[errors.WebSocketError]) -> None:
        if issubclass(error, errors.ProtocolError):
            assert may_be_sent(error.close_code)
        if issubclass(error, errors.HandshakeError):
            assert 400 <= error.status <= 599


def test_the_error_of_a_declined_upgrade_shows_the_answer_without_control_characters() -> None:
    response = Response(403, "No\twa\xffy" + "!" * 200, body=b"because")
    error = errors.UpgradeDeclined(response)
    assert error.status == 403 and error.response.body == b"because"
    assert str(error).startswith("The WebSocket handshake was declined: 403 No\\twa\\xffy!") and len(str(error)) < 140


ENDS = [
    (CloseReason(1000, "", True, "peer"), ConnectionDone),
    (CloseReason(1001, "", True, "local"), ConnectionDone),
    (CloseReason(1005, "", True, "peer"), ConnectionDone),
    (CloseReason(1011, "", True, "peer"), ConnectionLost),
    (CloseReason(4000, "", True, "peer"), ConnectionLost),
    (CloseReason(1006, "", False, "transport"), ConnectionLost),
    (CloseReason(1000, "", False, "peer"), ConnectionLost),
]


class TestConnectionClosed:
    """Code that catches Twisted's connection errors also catches this one."""

    @pytest.mark.parametrize(("reason", "kind"), ENDS)
    def test_connection_closed_belongs_to_twisteds_errors(self, reason: CloseReason, kind: type[Exception]) -> None:
        error = ConnectionClosed(reason)
        assert isinstance(error, kind)
        assert isinstance(error, ConnectionDone) != isinstance(error, ConnectionLost)
        assert isinstance(error, TwistedConnectionClosed) and isinstance(error, ConnectionClosed)
        assert Failure(error).check(ConnectionDone, ConnectionLost) is not None
        assert error.reason is reason

    def test_the_text_of_connection_closed_is_that_of_the_reason(self) -> None:
        error = ConnectionClosed(CloseReason(1006, "", False, "transport"))
        assert str(error) == "begun by transport, sent nothing, received nothing"
        assert repr(error).startswith("ConnectionClosed(CloseReason(code=1006,")
        assert Failure(error).getErrorMessage() == str(error)

    def test_a_copy_has_the_same_class(self) -> None:
        error = ConnectionClosed(CloseReason(1000, "", True, "peer"))
        assert type(copy(error)) is type(error) and copy(error).reason == error.reason

    def test_a_subclass_of_connection_closed_is_kept(self) -> None:
        class Own(ConnectionClosed):
            pass

        assert type(Own(CloseReason(1000, "", True, "peer"))) is Own


def test_a_handshake_timeout_is_a_timeout_error() -> None:
    with pytest.raises(TimeoutError) as caught:
        raise HandshakeTimeout
    assert isinstance(caught.value, HandshakeTimeout) and caught.value.status == 408
    assert str(caught.value) == "The WebSocket handshake took too long"
    assert HandshakeTimeout("later", retry_after=5).retry_after == 5
