"""The endpoints that the options name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.python.usage import UsageError

from twisted_beastws.service.descriptions import with_unix_mode
from twisted_beastws.service.faults import is_collecting

if TYPE_CHECKING:
    from twisted_beastws.service.option_sources import OptionSources
    from twisted_beastws.tls.certificates import ReloadableEndpoint


class AwaitedSocket:
    """An endpoint whose socket systemd will open: only its string can be checked."""

    def __init__(self, description: str) -> None:
        self._description = description

    def check(self) -> None:
        """Raise ValueError if the string is wrong."""
        if not re.fullmatch(r"systemd:domain=(?:INET6?|UNIX):(?:index=[0-9]+|name=.+)", self._description):
            raise ValueError("give it as systemd:domain=INET:index=0, with INET, INET6 or UNIX")


def endpoint_of(options: OptionSources, option: str, description: str, place: int | None = None) -> ReloadableEndpoint:
    """Return an endpoint of the service, which can reload its certificates.

    Args:
        options: the options of the service.
        option: the option that names the endpoint.
        description: the endpoint string.
        place: the place of the endpoint among those of ``--listen``, which workers share.

    Raises:
        UsageError: there is no such endpoint.
    """
    from twisted_beastws.service.proxy_protocol import ProxyProtocolReactor
    from twisted_beastws.tls.certificates import ReloadableEndpoint, why_no_identity

    reactor = ProxyProtocolReactor(_reactor(options, description, place))
    client_ca = options["client-ca"] if option == "listen" else None
    handed = None if options.membership is None else options.membership.handed
    named = f"{options.named(option)}={description}"
    try:
        return ReloadableEndpoint(reactor, with_unix_mode(description), client_ca, handed)
    except OSError as error:
        raise UsageError(f"{named}: {error.filename}: {error.strerror}") from error
    except (IndexError, KeyError) as error:
        # How Twisted reports a socket of systemd that is not there.
        if not description.startswith("systemd:"):
            raise
        if is_collecting():
            return AwaitedSocket(description)  # type: ignore[return-value]
        raise UsageError(f"{named}: systemd passed no such socket: start the service by its unit") from error
    except Exception as error:
        why = why_no_identity(error, description)
        if why is None:
            why = f"not an endpoint string, such as tcp:1984: {' '.join(str(error).split())}"
        raise UsageError(f"{named}: {why}") from error


def _reactor(options: OptionSources, description: str, place: int | None) -> Any:
    """Return the reactor for an endpoint."""
    # Importing the reactor installs it: not before twistd has read its own options.
    from twisted.internet import reactor

    from twisted_beastws.service.sockets import AdoptingReactor, HoldingReactor, KeepingReactor, ServiceReactor

    if options.membership is not None:
        return AdoptingReactor(reactor, [each for each in options.membership.sockets if each.endpoint == place])
    if options["workers"] and place is not None:
        return ServiceReactor(HoldingReactor(reactor, place, options.held), description)
    return ServiceReactor(KeepingReactor(reactor), description)
