"""Tests of `twisted_beastws.tls.failures`."""

from __future__ import annotations

import pytest
from OpenSSL import SSL
from twisted.internet.error import ConnectionLost

from twisted_beastws.tls.failures import tls_trouble


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (SSL.Error([("SSL routines", "", "certificate verify failed")]), "certificate verify failed"),
        (SSL.Error([("a", "", "one"), ("b", "", "another")]), "one another"),
        (SSL.Error([("SSL routines", "", "unexpected eof while reading")]), ""),
        (SSL.Error([]), ""),
        (SSL.SysCallError(-1, "Unexpected EOF"), ""),
        (SSL.Error(), ""),
        (ConnectionLost(), None),
        (OSError(5, "certificate verify failed"), None),
    ],
)
def test_a_failure_of_tls_is_described(error: BaseException, trouble: str | None) -> None:
    assert tls_trouble(error) == trouble
