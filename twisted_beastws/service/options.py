"""The command line of ``twistd beastws``."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.python.usage import UsageError

from twisted_beastws._version import __version__
from twisted_beastws.hub import LocalBackplane
from twisted_beastws.hub.planes import check_prefix
from twisted_beastws.server.factory import WebSocketServerFactory
from twisted_beastws.server.gates.forwarded import HEADERS, TrustedProxies
from twisted_beastws.server.gates.login import CertificateLogin, CheckerError, PasswordLogin, make_checker
from twisted_beastws.server.observers.access_log import AccessLog
from twisted_beastws.service.access.tokens import TokenVerifier
from twisted_beastws.service.api.tokens import TokenFile
from twisted_beastws.service.app import ASGI, AppError, ASGIApplication, Served, find_app, install_asyncio_reactor
from twisted_beastws.service.check import check
from twisted_beastws.service.faults import is_collecting, is_faulty, noted
from twisted_beastws.service.help import grouped
from twisted_beastws.service.option_endpoints import endpoint_of
from twisted_beastws.service.option_sources import OptionSources
from twisted_beastws.service.option_table import (
    CHAT_ROOMS,
    DEFAULTS,
    FACTORY_SETTINGS,
    GROUPS,
    LISTEN,
)
from twisted_beastws.tls.handover import absolute, read_files
from twisted_beastws.wire.origin import check_allowed

if TYPE_CHECKING:
    from twisted_beastws.tls.certificates import ReloadableEndpoint


class Options(OptionSources):
    """The options of the service. A value that cannot be used raises ``UsageError`` with one line of text.

    Attributes:
        endpoints: the endpoints to listen on, each with its string.
        admin: the endpoint for the metrics and the state of health, or None.
        api: the endpoint of the HTTP API, or None.
        tokens: of the programs that can use the API; None without an API.
        app: the application of ``--app``; None is the chat.
        checkers: identify users by password (``--auth``) or certificate (``--client-ca``), or None.
        verifiers: of tokens (``--auth jwt:``).
        access_log: the access log, or None.
        proxies: the trusted proxies, or None.
        arguments: a command line for a worker, with the options of all sources.
        files: the content, by path, of the files that workers start with.
        directory: the current directory when the options were parsed.
    """

    synopsis = "[options]"
    longdesc = (
        "Serves a chat for WebSocket clients at --path and its page at /, or with --app your own application. "
        "SIGTERM closes all connections gracefully, a second one drops the rest; SIGHUP reopens logs and reads "
        "certificates again."
    )

    app: Served | WebSocketServerFactory | ASGIApplication | None = None
    endpoints: tuple[tuple[str, ReloadableEndpoint], ...] = ()
    admin: tuple[str, ReloadableEndpoint] | None = None
    api: tuple[str, ReloadableEndpoint] | None = None
    tokens: TokenFile | None = None
    checkers: PasswordLogin | CertificateLogin | None = None
    verifiers: Sequence[TokenVerifier] = ()
    access_log: AccessLog | None = None
    proxies: TrustedProxies | None = None
    arguments: Sequence[str] = ()
    directory = "."

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["origin"] = []
        self["auth"] = []
        self["trust-proxy"] = []
        self["admin-host"] = []
        self.files: dict[str, str] = {}
        self._is_wrong = False

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse a command line. Raises ``UsageError``."""
        self.command_line = [*(sys.argv[1:] if options is None else options)]
        if "--check-config" in self.command_line and not is_collecting():
            self.opt_check_config()
        try:
            super().parseOptions(self.command_line)  # type: ignore[no-untyped-call]
        except UsageError:
            # twistd prints the usage before the error, which would scroll out of sight.
            self._is_wrong = True
            raise

    def opt_listen(self, description: str) -> None:
        """Endpoint to listen on, such as tcp:80 or ssl:443:privateKey=key.pem; may be
        repeated. By default only this machine can connect. [default: tcp:1984:interface=127.0.0.1]"""
        self["listen"].append(description)

    def opt_check_config(self) -> None:
        """Read everything that the options name, print a line for each fault, and exit with status 1, or with 0 if
        there is none. It opens no listener and no connection."""
        if not is_collecting():
            raise SystemExit(check(type(self)(), self.command_line))

    def opt_origin(self, origin: str) -> None:
        """Web site, such as https://example.com, whose pages can connect as this host's own can; may be repeated."""
        with noted("origin"):
            try:
                check_allowed(origin)
            except ValueError as error:
                raise UsageError(f"--origin={origin}: {error}") from None
            self["origin"].append(origin)

    def opt_auth(self, description: str) -> None:
        """Ask for a name and a password by HTTP Basic, and accept those of this checker, such as
        file:/etc/beastws.passwd with a line name:password for each user; or accept signed tokens (JWT), such as
        jwt:jwks=/etc/beastws.jwks:audience=chat; may be repeated. The environment variable BEASTWS_AUTH stands for it
        too."""
        kind, _, argument = description.partition(":")
        with noted("auth"):
            try:
                if kind == "jwt":
                    verifier = TokenVerifier(argument)
                    self["auth"].append(verifier)
                    description = verifier.description
                else:
                    self["auth"].append(make_checker(description))
                self.checker_descriptions.append(description)
            except (CheckerError, ValueError) as error:
                # The text after the colon can be a password.
                raise UsageError(f"--auth={kind}: {error}") from None

    def opt_hash_password(self, name: str) -> None:
        """Ask for the password of a user, print the line of a password file for it, hashed, and exit."""
        from getpass import getpass

        from twisted_beastws.server.gates.passwords import password_line

        try:
            line = password_line(name, getpass if sys.stdin.isatty() else lambda _: sys.stdin.readline().rstrip("\r\n"))
        except ValueError as error:
            raise UsageError(f"--hash-password={name}: {error}") from None
        print(line)
        raise SystemExit(0)

    def opt_trust_proxy(self, network: str) -> None:
        """Address or network of a proxy whose --proxy-header gives the client's address, such as 127.0.0.1 or
        10.0.0.0/8; or unix, for all connections to a UNIX socket; may be repeated."""
        with noted("trust-proxy"):
            try:
                TrustedProxies([network], HEADERS[0])
            except ValueError:
                raise UsageError(
                    f"--trust-proxy={network}: give an address, a network such as 10.0.0.0/8, or unix"
                ) from None
            self["trust-proxy"].append(network)

    def opt_admin_host(self, name: str) -> None:
        """Host name under which --admin answers, besides addresses, localhost and this machine's own name; may be
        repeated."""
        with noted("admin-host"):
            if not re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*)", name):
                raise UsageError(f"--admin-host={name}: give a host's name such as beastws.internal, without a port")
            self["admin-host"].append(name)

    def opt_version(self) -> None:
        """Display the version and exit."""
        print(f"twisted_beastws {__version__}")
        raise SystemExit(0)

    def opt_help(self) -> None:
        """Display this and exit."""
        print(self)
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """The text of ``--help``."""
        if self._is_wrong:
            return "'twistd beastws --help' lists the options.\n"
        width = width or int(os.environ.get("COLUMNS", "80"))
        options = grouped(GROUPS, self.longOpt, self.docs, width)
        return "\n".join(["", *textwrap.wrap(self.longdesc, width - 1), options])

    def parseArgs(self, *arguments: str) -> None:
        """Raise ``UsageError`` for any argument."""
        if arguments:
            raise UsageError(f"{arguments[0]}: beastws takes options only")

    def postOptions(self) -> None:
        """Find and check everything that the options name. Raises ``UsageError``."""
        self.read_environment()
        if self["config"] is not None:
            self.read_file(self["config"])
        if (self["app"] or "").startswith(ASGI):
            # Before an endpoint imports the reactor, which would install Twisted's default.
            install_asyncio_reactor()
        if not self["listen"]:
            self["listen"].append(LISTEN)
        self.directory = os.path.abspath(".")
        self.arguments = self.worker_arguments()
        with noted("backplane-prefix"):
            self._check_prefix()
        with noted("workers"):
            self._check_workers()
        listening = [self._endpoint("listen", description, place) for place, description in enumerate(self["listen"])]
        self.endpoints = tuple(found for found in listening if found is not None)
        if self["workers"] and not is_faulty("listen", "client-ca"):
            self.files = self.read_files()
        if self["admin"] is not None and self.membership is None:
            self.admin = self._endpoint("admin", self["admin"])
        if self["app"] is not None:
            with noted("app"):
                self.app = self._find_app()
        if not is_faulty("app"):
            with noted("api"):
                self._find_api()
        for option, default in DEFAULTS.items():
            if self[option] is None:
                self[option] = default
        self._find_identities()
        if self["trust-proxy"]:
            self.proxies = TrustedProxies(self["trust-proxy"], self["proxy-header"], prefix=bool(self["proxy-prefix"]))
        if self["access-log"] is not None:
            relay = None if self.membership is None else self.membership.reports.access_line
            self.access_log = AccessLog(self["access-log"], self["access-log-format"], relay)
        with noted("root-path"):
            check_root_path(self)
        with noted("idle-timeout"):
            self._check_timeouts()

    def _endpoint(
        self, option: str, description: str, place: int | None = None
    ) -> tuple[str, ReloadableEndpoint] | None:
        with noted(option):
            return description, endpoint_of(self, option, description, place)
        return None

    def _check_workers(self) -> None:
        is_chat = self["app"] is None and not is_faulty("app")
        if self["workers"] and is_chat and self["backplane"] is None and not is_faulty("backplane"):
            raise UsageError(
                f"{self.named('workers')}={self['workers']}: the chat's processes need --backplane, which joins them"
            )

    def _check_prefix(self) -> None:
        url, prefix = self["backplane"], self["backplane-prefix"]
        if url is not None and prefix is not None and not is_faulty("backplane") and not is_faulty("backplane-prefix"):
            try:
                check_prefix(url, prefix)
            except ValueError as error:
                raise UsageError(f"{self.named('backplane-prefix')}: {error}") from None

    def _check_timeouts(self) -> None:
        if 0 < self["idle-timeout"] <= self["ping-interval"] and not is_faulty("idle-timeout", "ping-interval"):
            raise UsageError(
                f"{self.named('idle-timeout')}={self['idle-timeout']:g} is not more than "
                f"{self.named('ping-interval')}={self['ping-interval']:g}: "
                "a silent client would be closed before its first ping"
            )

    def _find_identities(self) -> None:
        if self["auth"]:
            passwords = [checker for checker in self["auth"] if not isinstance(checker, TokenVerifier)]
            self.verifiers = [checker for checker in self["auth"] if isinstance(checker, TokenVerifier)]
            if passwords:
                self.checkers = PasswordLogin(passwords, max_failures=self["max-login-failures"] or None)
        elif self["client-ca"] is not None:
            self.checkers = CertificateLogin()

    def _find_api(self) -> None:
        path = self["api-token-file"]
        if self["api"] is not None and path is None:
            raise UsageError(f"{self.named('api')} needs --api-token-file, the tokens of the programs that can use it")
        if path is None or self.membership is not None:
            return
        try:
            self.tokens = TokenFile(path)
        except OSError as error:
            raise UsageError(f"{self.named('api-token-file')}={path}: {error.strerror}") from error
        except ValueError as error:
            raise UsageError(f"{self.named('api-token-file')}={path}: {error}") from error
        if self["api"] is None:
            raise UsageError(f"{self.named('api-token-file')} needs --api, the endpoint of the API")
        if self.app is not None:
            hub = getattr(self.app, "hub", None)
            if hub is None:
                raise UsageError(f"{self.named('api')}: {self['app']} needs an attribute hub, the Hub with its rooms")
            if self["workers"] and isinstance(hub.backplane, LocalBackplane):
                raise UsageError(f"{self.named('api')}: with --workers, the hub of {self['app']} needs a backplane")
        self.api = (self["api"], endpoint_of(self, "api", self["api"]))

    def _find_app(self) -> Served | WebSocketServerFactory | ASGIApplication:
        try:
            app = find_app(self["app"])
        except AppError as error:
            raise UsageError(f"{self.named('app')}={self['app']}: {error}") from error
        if self["path"] is not None:
            raise UsageError(f"{self.named('path')} is the chat's: an --app gets the requests of every path")
        for option in CHAT_ROOMS:
            if self[option] is not None:
                raise UsageError(f"{self.named(option)} is the chat's: an --app makes a Hub of its own")
        if isinstance(app, WebSocketServerFactory):
            for option in FACTORY_SETTINGS:
                if self.is_given(option):
                    raise UsageError(
                        f"{self.named(option)} does not reach a WebSocketServerFactory: {self['app']} has its own"
                    )
        return app

    def read_files(self) -> dict[str, str]:
        """Read the files that workers are to start with. Raises OSError."""
        return read_files([absolute(description) for description in self["listen"]], self["client-ca"])


def check_root_path(options: Options) -> None:
    """Give the ASGI application its root path. Raises ``UsageError`` if there is no such application."""
    for option in ("root-path", "proxy-prefix"):
        if options[option] and not is_faulty("app") and not isinstance(options.app, ASGIApplication):
            raise UsageError(f"{options.named(option)} is for --app=asgi:package.module:name: no other app has one")
    if isinstance(options.app, ASGIApplication):
        options.app.root_path = options["root-path"] or ""
    if options["proxy-prefix"] and not options["trust-proxy"]:
        raise UsageError(f"{options.named('proxy-prefix')} needs --trust-proxy, the proxies that set the field")
