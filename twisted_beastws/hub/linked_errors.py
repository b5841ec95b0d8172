"""Errors of a backplane's server, and failed connections, as states and plain English."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from twisted.internet.defer import FirstError
from twisted.internet.defer import TimeoutError as Overdue
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)

from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.tls.failures import tls_trouble


class Remedy(Enum):
    """The way out after an error reply."""

    RECONNECT = "another connection may reach a server that is ready"
    WAIT = "the same connection will do once the server has recovered"
    GIVE_UP = "nothing but another URL"


class Trouble(NamedTuple):
    """Why the server refuses a command.

    Attributes:
        state: the state of the backplane.
        remedy: the way out.
        public: words for publishers.
        logged: the full explanation, for the operator.
    """

    state: BackplaneState
    remedy: Remedy
    public: str
    logged: str


class Refused(Exception):
    """The server answered with an error.

    Attributes:
        trouble: its meaning.
    """

    def __init__(self, text: str, trouble: Trouble) -> None:
        super().__init__(text)
        self.trouble = trouble


class NotReplicated(Exception):
    """The server took a message, and too few replicas confirmed it in time."""


class LinkLost(Exception):
    """The connections ended, or a command's answer did not come in time."""


def why_lost(error: BaseException) -> str:
    """Explain in one line why there is no connection to the server."""
    if isinstance(error, FirstError):
        error = error.subFailure.value  # type: ignore[assignment]
    if isinstance(error, Refused):
        return error.trouble.logged
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, DNSLookupError):
        return "there is no host of that name, or no name server to ask"
    if isinstance(error, (TimeoutError, Overdue)):
        return "it did not answer in time"
    if isinstance(error, (ConnectionDone, ConnectionLost)):
        return "it closed the connection"
    tls = why_no_tls(error)
    if tls is not None:
        return tls
    if isinstance(error, ConnectError) and error.osError:
        return str(error.osError)
    return " ".join(str(error).split()) or type(error).__name__


# Words in OpenSSL's reasons, and their meaning for the connection.
_TLS = (
    ("certificate required", "it requires a client certificate, which the backplane does not have"),
    ("handshake failure", "it requires a client certificate, or shares no cipher or version of TLS with us"),
    ("certificate verify failed", "its certificate is not signed by an authority that this machine trusts"),
    ("unknown ca", "its certificate is not signed by an authority that this machine trusts"),
    ("expired", "its certificate has expired"),
    ("wrong version number", "it does not speak TLS: redis:// is the scheme without TLS"),
)


def why_no_tls(error: BaseException) -> str | None:
    """Explain in plain English why TLS failed; None if it did not."""
    kind = type(error)
    if kind.__module__.partition(".")[0] == "service_identity":
        return "its certificate is for another name than the URL's"
    reasons = tls_trouble(error)
    if reasons is None:
        return None
    for words, meaning in _TLS:
        if words in reasons:
            return meaning
    return f"TLS failed: {reasons}" if reasons else "it ended the TLS handshake; it may require a client certificate"
