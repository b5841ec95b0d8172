"""Warnings at the start: settings that work, and let in or show more than most operators want."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

from twisted_beastws.server.gates.forwarded import UNIX
from twisted_beastws.server.gates.passwords import PasswordFile
from twisted_beastws.service.access.tokens import TokenVerifier
from twisted_beastws.service.option_table import ANY_ORIGIN, FILE_ORIGIN, NULL_ORIGIN
from twisted_beastws.service.secrets import ENVIRONMENT

# Endpoints without TLS. A proxy is in front of haproxy:, and a UNIX socket is local.
_PLAIN = ("tcp", "tcp6", "systemd")
_LOOPBACK = re.compile(r"(?::interface=|^tcp6?:\d+:)(?:127\.|localhost\b|\\:\\:1(?!\S))")


def dangers(options: Any) -> Iterator[str]:
    """Return a line for each dangerous setting."""
    for option in options.visible:
        yield (
            f"--{option}: the list of processes shows its password to every user of this machine: give it by "
            f"{ENVIRONMENT[option]} in the environment, or in a file"
        )
    yield from _open(options)
    yield from _unencrypted(options)
    yield from _origins(options)
    for network in options["trust-proxy"]:
        if network != UNIX and ip_network(network).prefixlen == 0:
            yield f"{options.named('trust-proxy')}={network}: every client can claim any address: name the proxy's own"
    for path in _secrets(options):
        if _is_readable_by_all(path):
            yield f"{path}: every user of this machine can read it: chmod o-r"


def can_be_reached(description: str) -> bool:
    """Return whether other machines can connect to an endpoint; a socket of systemd counts as one that they can."""
    kind = description.partition(":")[0]
    return kind in (*_PLAIN, "ssl") and not _LOOPBACK.search(description)


def is_unencrypted(description: str) -> bool:
    """Return whether an endpoint has no TLS, and other machines can connect to it."""
    return description.partition(":")[0] in _PLAIN and can_be_reached(description)


def _open(options: Any) -> Iterator[str]:
    if options.app is None and not options["auth"] and options["client-ca"] is None:
        for description in options["listen"]:
            # deploy/ has a proxy before systemd's socket.
            if can_be_reached(description) and not (options["trust-proxy"] and description.startswith("systemd:")):
                yield (
                    f"{options.named('listen')}={description}: everyone who can reach this machine can read and write "
                    "in the chat: give --auth or --client-ca, or listen on the loopback interface"
                )
    if options.admin is not None and can_be_reached(options["admin"]):
        yield (
            f"{options.named('admin')}={options['admin']}: it asks for no password, and other machines can reach it: "
            "let only the machines that monitor this one connect"
        )


def _unencrypted(options: Any) -> Iterator[str]:
    if options["auth"] and not options["trust-proxy"]:
        what = "tokens" if all(isinstance(checker, TokenVerifier) for checker in options["auth"]) else "passwords"
        for description in filter(is_unencrypted, options["listen"]):
            yield (
                f"{options.named('auth')}: {what} come unencrypted to {description}: let it be ssl:, or name the proxy "
                "before it, which has TLS, by --trust-proxy"
            )
    if options["api"] is not None and is_unencrypted(options["api"]):
        yield (
            f"{options.named('api')}={options['api']}: tokens come unencrypted to it from other machines: let it be "
            "ssl:, or listen on the loopback interface"
        )


def _origins(options: Any) -> Iterator[str]:
    if options[ANY_ORIGIN]:
        yield f"--{ANY_ORIGIN}: the pages of every web site can connect with their visitors' rights: give --origin"
    for option in (NULL_ORIGIN, FILE_ORIGIN):
        if options[option]:
            yield f"--{option}: every page that imitates one without an origin can connect with its visitor's rights"


def _secrets(options: Any) -> Iterator[str]:
    """The files that only the service's user should read."""
    for checker in options["auth"]:
        if isinstance(checker, PasswordFile):
            yield checker.filename
        elif isinstance(checker, TokenVerifier) and checker.keys.is_secret:
            yield checker.keys.path
    if options.tokens is not None:
        yield options.tokens.path


def _is_readable_by_all(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False
