"""The command line, and the service that comes of it."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from OpenSSL.crypto import FILETYPE_PEM
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.ssl import Certificate, KeyPair
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from twisted_beastws import Deflate, Limits, Origins, Timeouts, WebSocketServerFactory
from twisted_beastws._version import __version__
from twisted_beastws.server.gates.login import PasswordLogin
from twisted_beastws.server.gates.login_limit import TooManyFailures
from twisted_beastws.server.gates.passwords import Hash
from twisted_beastws.server.peers import peer_of
from twisted_beastws.server.serving import ShutdownPolicy
from twisted_beastws.service import Options, makeService
from twisted_beastws.service.app import ASGIApplication
from twisted_beastws.service.chat import Chat

from ..support import command_line
from ..support.certificates import identity, identity_pem

APP = """
from twisted_beastws import Timeouts, WebSocketProtocol, WebSocketServerFactory

class Echo(WebSocketProtocol):
    pass

async def echo(ws):
    pass

factory = WebSocketServerFactory(Echo, timeouts=Timeouts(idle=7, ping_interval=3))

from twisted.web.resource import Resource
from twisted_beastws import Router
router = Router({"/echo/{name}": Echo}, echo)
from twisted.web.static import Data
root = Resource()
root.putChild(b"page", Data(b"the page", "text/plain"))
pages = Router({"/echo/{name}": Echo}, root)
"""


parse = partial(command_line.parse, Options)
refusal = partial(command_line.refusal, Options)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with applications in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "app_of_options.py").write_text(APP)
    monkeypatch.delitem(sys.modules, "app_of_options", raising=False)
    return "app_of_options"


LIMITS = Limits(
    max_message_size=1048576,
    max_head_size=16384,
    max_connections=10000,
    max_connections_per_peer=2000,
    max_opening=1000,
    max_opening_per_peer=250,
    max_handshakes_per_peer=1000,
)


class TestDefaults:
    """The service without options, and the help."""

    def test_the_defaults_are_a_local_chat(self) -> None:
        options = parse()
        assert [description for description, _ in options.endpoints] == ["tcp:1984:interface=127.0.0.1"]
        assert options.app is None
        assert options["path"] == "/chat"
        assert options.timeouts == Timeouts(handshake=30, idle=60, ping_interval=5, close=5)
        assert options.limits == LIMITS
        assert options.origins == Origins()
        assert options.proxies is None
        assert options.shutdown_policy == ShutdownPolicy(1001, "the server is shutting down", 8.0)
        assert (options.admin, options.access_log, options.checkers) == (None, None, None)

    def test_the_help_shows_each_default(self) -> None:
        help_text = " ".join(str(parse()).split())
        for default in (
            "tcp:1984:interface=127.0.0.1",
            "/chat",
            "5",
            "60",
            "30",
            "1048576",
            "100",
            "8",
            "1001",
            "text",
        ):
            assert f"[default: {default}]" in help_text
        for option in (
            "listen",
            "path",
            "ping-interval",
            "idle-timeout",
            "handshake-timeout",
            "max-message",
            "origin",
            "auth",
            "client-ca",
            "drain-time",
            "drain-code",
            "admin",
            "access-log",
            "access-log-format",
            "config",
            "app",
        ):
            assert f"--{option}=" in help_text
        assert "--allow-any-origin-dangerously " in help_text

    def test_the_help_has_groups(self) -> None:
        lines = str(parse()).splitlines()
        titles = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
        assert titles[0] == "Service:" and titles[-1] == "Other:"
        assert {"Access control:", "Timeouts:", "HTTP API:", "Shutdown:", "Monitoring:"} < set(titles)
        assert len(titles) == len(set(titles)) >= 6
        assert lines.index("Other:") < next(at for at, line in enumerate(lines) if line.startswith("  --version"))

    def test_the_help_fits_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("COLUMNS", raising=False)
        assert max(map(len, str(parse()).splitlines())) <= 80

    def test_two_commands_do_not_share_lists(self) -> None:
        assert parse("--listen=tcp:1", "--origin=http://a")["listen"] == ["tcp:1"]
        assert parse()["listen"] == ["tcp:1984:interface=127.0.0.1"]
        assert parse()["origin"] == []


class TestGiven:
    """Options with values."""

    def test_all_options_are_read(self) -> None:
        options = parse(
            *("--listen", "tcp:8080:interface=127.0.0.1", "--listen=unix:/run/chat", "--path=/a/b"),
            *("--ping-interval=0.25", "--idle-timeout", "9", "--handshake-timeout=2", "--max-message=99999"),
            *("--origin=https://example.com", "--origin", "http://localhost:8000"),
        )
        assert [description for description, _ in options.endpoints] == [
            "tcp:8080:interface=127.0.0.1",
            "unix:/run/chat",
        ]
        assert options["path"] == "/a/b"
        assert options.timeouts == Timeouts(handshake=2, idle=9, ping_interval=0.25, close=5)
        assert options.limits == replace(LIMITS, max_message_size=99999)
        assert options.origins == Origins(allowed=("https://example.com", "http://localhost:8000"))

    def test_zero_means_no_timeout(self) -> None:
        options = parse("--ping-interval=0", "--idle-timeout=0", "--handshake-timeout=0")
        assert options.timeouts == Timeouts(handshake=None, idle=None, ping_interval=None, close=5)

    def test_any_idle_timeout_is_accepted_without_pings(self) -> None:
        assert parse("--ping-interval=0", "--idle-timeout=1").timeouts.idle == 1
        assert parse("--ping-interval=300", "--idle-timeout=0").timeouts.ping_interval == 300

    def test_any_origin_is_allowed_by_an_option_that_names_the_danger(self) -> None:
        assert parse("--allow-any-origin-dangerously").origins == Origins(allow_any_origin_dangerously=True)
        assert parse("--allow-null-origin-dangerously").origins == Origins(allow_null_origin_dangerously=True)
        assert parse("--allow-file-origin-dangerously").origins == Origins(allow_file_origin_dangerously=True)

    def test_the_error_for_a_bad_origin_has_the_right_one(self) -> None:
        assert refusal("--origin=bücher.example:8080") == (
            "--origin=bücher.example:8080: 'bücher.example:8080' is the origin of no page: it has no scheme; "
            "write 'https://xn--bcher-kva.example:8080'"
        )
        for value, kind in (("*", "any"), ("null", "null"), ("file://", "file")):
            assert f"--allow-{kind}-origin-dangerously" in refusal(f"--origin={value}")

    def test_the_options_of_the_end_are_read(self) -> None:
        assert parse("--drain-time=0", "--drain-code=1012").shutdown_policy == ShutdownPolicy(
            1012, "the server is restarting", 0.0
        )

    def test_the_limits_are_read(self) -> None:
        names = [field.name for field in fields(Limits) if field.name.startswith("max_")]
        asked = {
            "head": "max_head_size",
            "connections": "max_connections",
            "connections-per-address": "max_connections_per_peer",
            "handshakes": "max_handshakes",
            "handshakes-per-address": "max_handshakes_per_peer",
            "message-rate": "max_message_rate",
            "byte-rate": "max_byte_rate",
        }
        given = parse(*(f"--max-{option}={number}" for number, option in enumerate(asked, 2))).limits
        changed: dict[str, Any] = {name: number for number, name in enumerate(asked.values(), 2)}
        assert given == replace(LIMITS, **changed)
        assert set(asked.values()) < set(names)
        rates = parse("--max-message-rate=0.5", "--max-handshakes=2.5").limits
        assert (rates.max_message_rate, rates.max_handshakes) == (0.5, 2.5)

    def test_zero_means_no_limit(self) -> None:
        options = (
            "connections",
            "connections-per-address",
            "handshakes",
            "handshakes-per-address",
            "message-rate",
            "byte-rate",
        )
        limits = parse(*(f"--max-{option}=0" for option in options)).limits
        assert limits == Limits(max_message_size=1048576, max_opening=1000, max_opening_per_peer=250)

    def test_memory_is_limited_by_default(self) -> None:
        budget = makeService(parse()).factory.settings.budget
        assert budget is not None and budget.limit == 256 << 20
        assert "[default: 268435456]" in " ".join(Options().getUsage(1000).split())

    @pytest.mark.parametrize(("given", "limit"), [("1000", 1000), ("0", None)])
    def test_the_memory_is_limited(self, given: str, limit: int | None) -> None:
        budget = makeService(parse(f"--max-memory={given}")).factory.settings.budget
        assert limit == (budget and budget.limit)

    @pytest.mark.parametrize("given", ["", "1g", "-1", "1.5"])
    def test_memory_is_a_number_of_bytes(self, given: str) -> None:
        expected = f"--max-memory={given}: give a number of bytes, such as 268435456; 0 is no limit"
        assert refusal(f"--max-memory={given}") == expected

    def test_memory_is_limited_for_a_factory_with_its_own_limits(self, app: str) -> None:
        factory = makeService(parse(f"--app={app}:factory", "--max-memory=1000")).factory
        assert factory.settings.budget is not None and factory.settings.budget.limit == 1000
        assert factory.settings.timeouts == Timeouts(idle=7, ping_interval=3)

    def test_the_proxies_are_read(self) -> None:
        options = parse("--trust-proxy=10.0.0.0/8", "--trust-proxy", "unix", "--proxy-header=Forwarded")
        assert (options["trust-proxy"], options["proxy-header"]) == (["10.0.0.0/8", "unix"], "forwarded")
        assert options.proxies is not None
        assert makeService(options).factory.client_of == options.proxies.client_of

    @pytest.mark.parametrize(
        ("given", "deflate"),
        [
            ("on", Deflate()),
            ("level=6", Deflate(level=6)),
            (
                "server_max_window_bits=12; client-max-window-bits=9,server_no_context_takeover, threshold=64",
                Deflate(
                    server_max_window_bits=12,
                    client_max_window_bits=9,
                    server_no_context_takeover=True,
                    threshold=64,
                ),
            ),
            ("client-no-context-takeover,mem-level=9", Deflate(client_no_context_takeover=True, mem_level=9)),
        ],
    )
    def test_the_parameters_of_deflate_are_read(self, given: str, deflate: Deflate) -> None:
        assert makeService(parse(f"--deflate={given}")).factory.settings.deflate == deflate
        assert makeService(parse()).factory.settings.deflate is None

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ("", "'' is no parameter: give on, or some of server_max_window_bits, "),
            ("off", "'off' is no parameter: give on, or some of "),
            ("level", "level=: give a number"),
            ("level=x", "level=x: give a number"),
            ("level=10", "Deflate(level=10): must be a number, 0-9"),
            ("level=1,level=2", "level is given twice"),
            ("server_max_window_bits=8", "Deflate(server_max_window_bits=8): must be"),
            ("server_no_context_takeover=1", "server_no_context_takeover takes no value"),
            ("level=1,", "is no parameter"),
        ],
    )
    def test_parameters_that_deflate_does_not_have_are_refused(self, given: str, why: str) -> None:
        told = refusal(f"--deflate={given}")
        assert told.startswith(f"--deflate={given}: ") and why in told

    def test_the_names_of_the_admin_are_read(self) -> None:
        names = parse("--admin=tcp:1", "--admin-host=beastws.internal", "--admin-host", "metrics")["admin-host"]
        assert names == ["beastws.internal", "metrics"]
        for name in ("", "a:80", "http://a", "a/b", "*"):
            assert refusal(f"--admin-host={name}").startswith(f"--admin-host={name}: give a host's name")

    def test_the_logins_are_read(self) -> None:
        options = parse("--auth=memory:ann:secret", "--auth", "memory:bob:123")
        assert len(options["auth"]) == 2
        assert options.checkers is not None

    def test_the_start_warns_of_passwords_that_can_be_seen(self, logged: Callable[..., list[Any]]) -> None:
        makeService(parse("--auth=memory:a:b", "--listen=tcp:1", "--listen=unix:/tmp/x", "--listen=tcp:2"))
        # Two endpoints, and the command line.
        assert len(logged(type(None))) == 3

    def test_a_password_is_hashed(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setattr(sys, "stdin", StringIO("secret\nsecret\n"))
        with pytest.raises(SystemExit) as exit:
            parse("--hash-password=ann")
        assert exit.value.code == 0
        line = capsys.readouterr().out
        assert line.startswith("ann:$scrypt$ln=14,r=8,p=5$") and line.count("\n") == 1
        assert Hash.parse(line.strip().partition(":")[2].encode()).matches(b"secret")

    def test_a_password_that_is_mistyped_is_not_hashed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", StringIO("secret\nsecrte\n"))
        assert refusal("--hash-password=ann") == "--hash-password=ann: the passwords differ"

    @pytest.mark.parametrize(("given", "failures"), [((), 10), (("--max-login-failures=3",), 3)])
    def test_the_number_of_wrong_passwords_is_read(self, given: tuple[str, ...], failures: int) -> None:
        options = parse("--auth=memory:a:b", *given)
        assert isinstance(options.checkers, PasswordLogin)
        # The option's number is in the limit, which has no public name.
        limit = options.checkers._limit
        results: list[Any] = []
        for _ in range(failures + 1):
            Deferred.fromCoroutine(limit.check(peer_of("192.0.2.1"), lambda: succeed(None))).addBoth(results.append)
        assert results[:-1] == [None] * failures
        assert results[-1].type is TooManyFailures

    def test_the_authorities_are_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "ca.pem").write_bytes(identity_pem())
        assert parse("--client-ca=ca.pem", "--listen=ssl:1984:privateKey=ca.pem")["client-ca"] == f"{tmp_path}/ca.pem"
        assert refusal("--client-ca=none.pem") == "--client-ca=none.pem: No such file or directory"
        for text, why in (
            ("", "there is no certificate in it (PEM)"),
            (f"{_BEGIN}\nx\n{_END}\n", "a certificate in it cannot be read"),
        ):
            (tmp_path / "ca.pem").write_text(text)
            assert refusal("--client-ca=ca.pem") == f"--client-ca=ca.pem: {why}"

    @pytest.mark.parametrize(
        ("size", "buffered"), [(1 << 20, 1 << 22), ((1 << 20) + 1, (1 << 22) + 4), (1 << 26, 1 << 28)]
    )
    def test_the_buffers_hold_the_largest_message(self, size: int, buffered: int) -> None:
        limits = parse(f"--max-message={size}").limits
        assert (limits.max_message_size, limits.max_buffered) == (size, buffered)

    def test_the_version_is_that_of_the_package(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            parse("--version")
        assert caught.value.code == 0
        assert capsys.readouterr().out == f"twisted_beastws {__version__}\n"


_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
COUNT = "give a number; 0 is no limit"
RATE = "give a number a second, such as 10 or 0.5; 0 is no limit"
PROXY = "give an address, a network such as 10.0.0.0/8, or unix"
SECONDS = "give seconds, such as 5 or 0.5; 0 is never"
OCTETS = "give a number of bytes, 1 or more"
DRAIN = "give seconds, such as 8 or 0.5; 0 drops everyone"
CODE = "give 1001, the server goes away, or 1012, it comes back at once"
PATH = "give a path such as /chat: from a slash on, without a query, percent-encoded"
ENDPOINT = "not an endpoint string, such as tcp:1984:"


class TestRefused:
    """Options that are refused, with their error lines."""

    @pytest.mark.parametrize(
        ("argument", "why"),
        [
            *(
                (f"--ping-interval={text}", SECONDS)
                for text in ("abc", "-1", "-0.001", "nan", "inf", "", "5s", "1e999")
            ),
            ("--idle-timeout=x", SECONDS),
            ("--handshake-timeout=-3", SECONDS),
            *((f"--max-message={text}", OCTETS) for text in ("0", "-1", "1k", "1.5", "", "1_000", "9" * 30)),
            *((f"--max-head={text}", OCTETS) for text in ("0", "x")),
            *((f"--max-connections={text}", COUNT) for text in ("-1", "1.5", "", "1e3", "9" * 10)),
            ("--max-connections-per-address=x", COUNT),
            *((f"--max-handshakes={text}", RATE) for text in ("-1", "x", "", "inf", "nan")),
            *((f"--max-{option}=x", RATE) for option in ("handshakes-per-address", "message-rate", "byte-rate")),
            *((f"--trust-proxy={text}", PROXY) for text in ("localhost", "", "10.0.0.1/8", "10.0.0.0/33", "*")),
            *((f"--proxy-header={text}", "give x-forwarded-for or forwarded") for text in ("", "via")),
            *((f"--drain-time={text}", DRAIN) for text in ("-1", "x", "")),
            *((f"--drain-code={text}", CODE) for text in ("1000", "01001", "x", "")),
            ("--access-log-format=xml", "give text or json"),
            ("--auth=nope", "give one of file, memory, unix, and what it needs, as in file:passwords"),
            *((f"--path={text}", PATH) for text in ("chat", "", "/a?b", "/a#b", "/a b", "/ä", '/"', "ws://h/")),
            *(
                (f"--origin={text}", f"{text!r} is the origin of no page: {why}; write {written}")
                for text, why, written in (
                    ("example.com", "it has no scheme", "'https://example.com'"),
                    (
                        "https://a b",
                        "it has characters that an origin never has",
                        "it as https://host or https://host:port",
                    ),
                    ("wss://a", "pages come by https:", "'https://a'"),
                )
            ),
        ],
    )
    def test_a_bad_value_is_refused(self, argument: str, why: str) -> None:
        assert refusal(argument) == f"{argument}: {why}"

    @pytest.mark.parametrize("description", ["1984", "foo:1", "", "tcp", "tcp:x", "tcp:1:2:3:4", "tcp:1:colour=red"])
    def test_a_bad_endpoint_is_refused(self, description: str) -> None:
        assert refusal("--listen", "tcp:1", "--listen", description).startswith(f"--listen={description}: {ENDPOINT} ")

    def test_a_password_is_not_repeated(self) -> None:
        assert refusal("--auth=memory:ann:secret:bob") == "--auth=memory: argstring must be in format U:P:..."

    def test_a_bad_endpoint_of_the_admin_is_refused(self) -> None:
        assert refusal("--admin=foo:1").startswith("--admin=foo:1: not an endpoint string, such as tcp:1984: ")

    def test_a_missing_certificate_is_refused(self) -> None:
        assert refusal("--listen=ssl:443:privateKey=/nope") == (
            "--listen=ssl:443:privateKey=/nope: /nope: No such file or directory"
        )

    @pytest.mark.parametrize("prefix", ["", "beastws:", "haproxy:"])
    @pytest.mark.parametrize(
        ("files", "why"),
        [
            ("privateKey=key", "certKey= is missing: the file of privateKey= alone is not both a private key and its"),
            ("privateKey=certificate", "certKey= is missing: the file of privateKey= alone is not both a private key"),
            ("privateKey=key:certKey=junk", "privateKey= and certKey= are to name a private key and its certificate"),
            ("privateKey=junk:certKey=certificate", "privateKey= and certKey= are to name a private key and its"),
            ("privateKey=key:certKey=other", "the private key and the certificate do not fit together"),
            ("privateKey=unlike", "the private key and the certificate do not fit together"),
        ],
    )
    def test_a_key_that_does_not_fit_its_certificate_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, files: str, why: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        pair = identity()
        key, certificate = pair.privateKey.dump(FILETYPE_PEM), Certificate.dump(pair, FILETYPE_PEM)
        other = Certificate.dump(KeyPair.generate(size=2048).selfSignedCert(1, CN="other"), FILETYPE_PEM)
        contents = {"key": key, "certificate": certificate, "other": other, "junk": b"junk", "unlike": key + other}
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        assert refusal(f"--listen={prefix}ssl:443:{files}").startswith(f"--listen={prefix}ssl:443:{files}: {why}")
        parse(f"--listen={prefix}ssl:443:privateKey=key:certKey=certificate")

    def test_an_idle_timeout_below_the_ping_interval_is_refused(self) -> None:
        why = "a silent client would be closed before its first ping"
        assert refusal("--idle-timeout=5") == f"--idle-timeout=5 is not more than --ping-interval=5: {why}"
        assert refusal("--ping-interval=61") == f"--idle-timeout=60 is not more than --ping-interval=61: {why}"
        parse("--idle-timeout=5.5")

    def test_an_error_is_printed_after_the_usage_line_without_the_whole_help(self) -> None:
        options = Options()
        with pytest.raises(UsageError):
            options.parseOptions(["--history=many"])
        # twistd prints the options, and then the error.
        usage, hint = str(options).splitlines()
        assert usage.endswith("[options]")
        assert hint == "'twistd beastws --help' lists the options."

    def test_an_unknown_option_is_refused(self) -> None:
        assert refusal("--nope") == "option --nope not recognized"
        assert refusal("--app") == "option --app requires argument"
        assert refusal("tcp:1984", "x") == "tcp:1984: beastws takes options only"


class TestApi:
    """The options of the API."""

    @pytest.fixture
    def tokens(self, tmp_path: Path) -> Path:
        (tmp_path / "tokens").write_text("0123456789abcdef")
        return tmp_path / "tokens"

    def test_the_api_must_have_an_endpoint_and_tokens(self, tokens: Path) -> None:
        assert parse().api is None
        options = parse("--api=tcp:0", f"--api-token-file={tokens}")
        assert options.api is not None and options.api[0] == "tcp:0"
        assert options.tokens is not None and options.tokens.path == str(tokens)
        assert refusal("--api=tcp:0") == "--api needs --api-token-file, the tokens of the programs that can use it"
        assert refusal(f"--api-token-file={tokens}") == "--api-token-file needs --api, the endpoint of the API"

    def test_tokens_must_be_readable_and_long(self, tokens: Path) -> None:
        assert refusal("--api=tcp:0", "--api-token-file=/nowhere").endswith("/nowhere: No such file or directory")
        tokens.write_text("short")
        why = "line 1: give 16 or more letters, digits and -._~+/, then perhaps ="
        assert refusal("--api=tcp:0", f"--api-token-file={tokens}") == f"--api-token-file={tokens}: {why}"

    def test_an_application_needs_a_hub_for_the_api(self, tokens: Path, app: str) -> None:
        given = ("--api=tcp:0", f"--api-token-file={tokens}")
        assert refusal(f"--app={app}:Echo", *given) == (
            f"--api: {app}:Echo needs an attribute hub, the Hub with its rooms"
        )

    def test_workers_are_started_without_their_own_listener(self, tokens: Path) -> None:
        options = parse("--api=tcp:0", f"--api-token-file={tokens}")
        assert f"--api-token-file={tokens}" in options.arguments
        assert not [argument for argument in options.arguments if argument.startswith("--api=")]


class TestApp:
    """The option ``--app``."""

    def test_a_class_or_coroutine_takes_the_settings(self, app: str) -> None:
        for name, protocol in (("Echo", "Echo"), ("echo", "HandlerProtocol")):
            service = makeService(parse("--app", f"{app}:{name}", "--idle-timeout=9", "--origin=https://example.com"))
            settings = service.factory.settings
            assert settings.timeouts == Timeouts(handshake=30, idle=9, ping_interval=5, close=5)
            assert settings.origins.allowed == ("https://example.com",)
            assert type(service.factory.buildProtocol(None)).__name__ == protocol

    @pytest.mark.parametrize("option", ["--root-path=/app", "--proxy-prefix"])
    def test_a_root_path_is_for_asgi_applications(self, app: str, option: str) -> None:
        for arguments in ((), (f"--app={app}:Echo",)):
            message = refusal(*arguments, option, "--trust-proxy=127.0.0.1", "--listen=tcp:1")
            assert message.endswith(" is for --app=asgi:package.module:name: no other app has one")

    @pytest.mark.parametrize("path", ["app", "/", "/app/", "/a b", "/a?b"])
    def test_another_root_path_is_refused(self, path: str) -> None:
        assert "give a path such as /app" in refusal(f"--root-path={path}", "--listen=tcp:1")

    def test_an_asgi_application_gets_the_root_path(self) -> None:
        application = ASGIApplication(lambda scope, receive, send: None)
        application.root_path = "/app"
        assert vars(application.factory())["root_path"] == "/app"

    def test_a_router_takes_the_settings(self, app: str, tmp_path: Path) -> None:
        service = makeService(parse("--app", f"{app}:router", "--idle-timeout=9"))
        assert service.factory.settings.timeouts.idle == 9
        assert type(service.factory.buildProtocol(None)).__name__ == "RoutedProtocol"

    @pytest.mark.parametrize(
        ("login", "status"), [(None, b"401"), (b"a:wrong", b"401"), (b"a:secret", b"200"), (b"b:secret", b"401")]
    )
    def test_a_login_is_needed_for_the_pages_of_a_router(self, app: str, login: bytes | None, status: bytes) -> None:
        factory = makeService(parse(f"--app={app}:pages", "--auth=memory:a:secret", "--listen=tcp:1")).factory
        request = b"GET /page HTTP/1.1\r\nHost: localhost\r\n"
        if login is not None:
            request += b"Authorization: Basic " + b64encode(login) + b"\r\n"
        channel, transport = factory.buildProtocol(None), StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(request + b"\r\n")
        channel.connectionLost(Failure(ConnectionDone()))
        answer = transport.value()
        assert answer.startswith(b"HTTP/1.1 " + status) and (b"the page" in answer) == (status == b"200")
        assert factory.connections == set()

    def test_a_factory_is_served_as_it_is(self, app: str) -> None:
        service = makeService(parse(f"--app={app}:factory", "--listen=tcp:1"))
        assert service.factory.settings.timeouts == Timeouts(idle=7, ping_interval=3)

    def test_a_factory_gets_the_login_and_the_access_log(self, app: str, tmp_path: Path) -> None:
        log = tmp_path / "access.log"
        service = makeService(
            parse(f"--app={app}:factory", "--auth=memory:a:b", f"--access-log={log}", "--admin=tcp:1")
        )
        factory = service.factory
        assert factory.gate is not None and factory.observer is not None
        assert type(factory.buildProtocol(None)).__name__ == "Echo"

    @pytest.mark.parametrize(
        "argument",
        [
            "--allow-any-origin-dangerously",
            "--ping-interval=0",
            "--idle-timeout=60",
            "--handshake-timeout=1",
            "--max-message=1",
            "--origin=http://a",
        ],
    )
    def test_settings_of_a_factory_are_refused(self, app: str, argument: str) -> None:
        option = argument.partition("=")[0]
        assert refusal(f"--app={app}:factory", argument) == (
            f"{option} does not reach a WebSocketServerFactory: {app}:factory has its own"
        )

    @pytest.mark.parametrize("name", ["Echo", "echo", "factory"])
    def test_options_of_the_chat_are_refused_for_an_application(self, app: str, name: str) -> None:
        assert refusal(f"--app={app}:{name}", "--path=/chat") == (
            "--path is the chat's: an --app gets the requests of every path"
        )

    def test_an_application_that_is_missing_is_reported(self, app: str) -> None:
        assert refusal("--app=nonsense") == "--app=nonsense: give it as package.module:name"
        assert refusal(f"--app={app}:nope").startswith(f"--app={app}:nope: the module {app} (")


def test_the_chat_has_one_room() -> None:
    factory = makeService(parse()).factory
    assert isinstance(factory, WebSocketServerFactory)
    first, second = factory.buildProtocol(None), factory.buildProtocol(None)
    assert isinstance(first, Chat) and isinstance(second, Chat)
    assert first is not second
    # The chat's room has no public name.
    assert first._room is second._room
