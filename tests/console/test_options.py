"""The command line."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest

from twisted_beastws import __version__
from twisted_beastws.console.commands import HELP, CloseCommand, MessageCommand, Ping
from twisted_beastws.console.failures import Status
from twisted_beastws.console.options import DEFAULTS, ConsoleOptions

from ..support import command_line
from ..support.certificates import Authority

URL = "ws://localhost:1984/chat"


parse = partial(command_line.parse, ConsoleOptions)
refusal = partial(command_line.refusal, ConsoleOptions)


class TestGiven:
    """Options with values."""

    def test_the_url_alone_is_sufficient(self) -> None:
        options = parse(URL)
        assert (options.url.host, options.url.port, options.url.target) == ("localhost", 1984, "/chat")
        assert options.script is None
        assert (options["header"], options["subprotocol"]) == ({}, [])
        assert not options["insecure"] and not options["bench"]
        assert (options["wait"], options["connections"], options["messages"], options["size"]) == (1.0, 10, 1000, 64)

    @pytest.mark.parametrize("url_first", [True, False])
    def test_all_options_are_read(self, url_first: bool) -> None:
        arguments = [
            *("--header", "x-a: 1", "-H", "X-A:2", "--header=Origin: https://example.com", "-H", "Empty:"),
            *("--subprotocol=chat.v1", "-s", "chat", "--insecure", "--wait=0.5"),
            *("--exec", "hello", "-x", "/ping", "--exec=/close 4000", "-x", "-1", "--exec="),
        ]
        options = parse(*([URL, *arguments] if url_first else [*arguments, URL]))
        assert options["header"] == {"X-A": ["1", "2"], "Origin": ["https://example.com"], "Empty": [""]}
        assert options["subprotocol"] == ["chat.v1", "chat"]
        assert options["insecure"] and options["wait"] == 0.5
        assert options.script == [
            MessageCommand("hello"),
            Ping(),
            CloseCommand(4000),
            MessageCommand("-1"),
            MessageCommand(""),
        ]

    def test_fields_are_read_from_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "fields").write_text("\ufeffAuthorization: Bearer s3cret\r\n\nX-A: 1\n", encoding="utf-8")
        options = parse(URL, "-H", f"@{tmp_path}/fields", "-H", "X-A: 2")
        assert options["header"] == {"Authorization": ["Bearer s3cret"], "X-A": ["1", "2"]}
        assert refusal(URL, "--header=@/nope") == "--header=/nope: No such file or directory"
        (tmp_path / "fields").write_text("no field")
        assert refusal(URL, "-H", f"@{tmp_path}/fields") == "--header='no field': give it as 'Name: value'"

    def test_the_options_of_the_bench_are_read(self) -> None:
        options = parse("-b", URL, "--connections=1", "--messages", "2", "--size=3")
        assert options["bench"]
        assert (options["connections"], options["messages"], options["size"]) == (1, 2, 3)

    def test_the_wait_may_be_unlimited(self) -> None:
        assert parse(URL, "-w", "forever")["wait"] == math.inf
        assert parse(URL, "--wait=0")["wait"] == 0

    def test_two_command_lines_share_nothing(self) -> None:
        parse(URL, "-x", "1", "-H", "A: 1", "-s", "a")
        assert parse(URL).script is None
        assert (parse(URL)["header"], parse(URL)["subprotocol"]) == ({}, [])

    @pytest.mark.parametrize("option", ["--help", "--version"])
    def test_help_and_version_are_printed(self, option: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            parse(option)
        assert caught.value.code == 0
        out = capsys.readouterr().out
        assert (
            out == f"twisted_beastws {__version__}\n" if option == "--version" else "python -m twisted_beastws" in out
        )


class TestHelp:
    """The help of the command."""

    def test_the_help_shows_each_default(self) -> None:
        text = " ".join(str(parse(URL)).split())
        for default in DEFAULTS.values():
            assert f"[default: {default:g}]" in text

    def test_the_help_fits_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("COLUMNS", raising=False)
        assert max(map(len, str(parse(URL)).splitlines())) <= 80


NUMBER = "give a number, 1-"
SECONDS = "give seconds, such as 5 or 0.5, or forever"


class TestRefused:
    """Options that are refused, with their error lines."""

    @pytest.mark.parametrize(
        ("argument", "why"),
        [
            *((f"--wait={text}", SECONDS) for text in ("x", "-1", "nan", "inf", "")),
            *((f"--connections={text}", f"{NUMBER}100000") for text in ("0", "x", "", "-1", "100001", "1.5", "9" * 30)),
            ("--messages=0", f"{NUMBER}10000000"),
            ("--size=0", f"{NUMBER}1048576"),
            ("--size=1048577", f"{NUMBER}1048576"),
            *((f"--subprotocol={text}", "give a name such as chat.v1") for text in ("", "a b", "a,b", "ü")),
            *((f"--exec={text}", "/nope: no such command") for text in ("/nope",)),
        ],
    )
    def test_a_bad_value_is_refused(self, argument: str, why: str) -> None:
        said = refusal(URL, "--bench", argument) if "exec" not in argument else refusal(URL, argument)
        option, _, value = argument.partition("=")
        assert said.startswith((f"{argument}: {why}", f"{option}={value!r}: {why}"))

    @pytest.mark.parametrize("field", ["", "a", "a b: c", ": x", "a: b\r\nc: d", "a: b\x00", "ü: x"])
    def test_a_bad_field_is_refused(self, field: str) -> None:
        assert refusal(URL, "-H", field) == f"--header={field!r}: give it as 'Name: value'"

    @pytest.mark.parametrize("name", ["upgrade", "Connection", "Sec-WebSocket-Key", "Content-Length"])
    def test_a_field_of_the_handshake_is_refused(self, name: str) -> None:
        assert refusal(URL, "-H", f"{name}: x") == f"--header={name}: x: {name} is the handshake's own"

    @pytest.mark.parametrize("url", ["localhost:1984", "ftp://h/", "/chat", "ws:///", "ws://h/#x", "ws://h:x/", ""])
    def test_a_text_that_is_no_url_is_refused(self, url: str) -> None:
        assert refusal(url).startswith(f"not a WebSocket URL: {url!r}")

    def test_other_mistakes_are_refused(self) -> None:
        assert refusal() == "give the URL of a WebSocket server, such as ws://localhost:1984/chat"
        assert refusal(URL, "hello") == f"hello: there is one URL, and {URL} is it; --exec sends messages"
        assert refusal(URL, "--nope") == "option --nope not recognized"
        assert refusal(URL, "--exec") == "option --exec requires argument"
        assert refusal(URL, "-s", "a", "-s", "a") == "--subprotocol=a: it is given twice"
        assert refusal(URL, "-x", "/help") == "--exec=/help: that is for the prompt; --help is for the command line"

    def test_bad_files_of_tls_are_refused(self, tmp_path: Path) -> None:
        secure, file = URL.replace("ws:", "wss:"), tmp_path / "file.pem"
        for option, content, why in (
            ("cacert", b"", "there is no certificate in it (PEM)"),
            ("cert", Authority("ours").pem, "there is no private key in it that can be read (PEM, without a password)"),
        ):
            assert refusal(secure, f"--{option}={file}") == f"--{option}={file}: No such file or directory"
            file.write_bytes(content)
            assert refusal(secure, f"--{option}={file}") == f"--{option}={file}: {why}"
            file.unlink()

    def test_options_that_conflict_are_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "file.pem"
        file.write_bytes(Authority("ours").issue("ann"))
        for option in ("cacert", "cert"):
            assert refusal(URL, f"--{option}={file}") == f"--{option} is for TLS, and that is for wss://"
        told = refusal(URL.replace("ws:", "wss:"), f"--cacert={file}", "-k")
        assert told == "--insecure trusts anybody: --cacert does not go with it"
        assert refusal(URL, "--size=1") == "--size only goes with --bench"
        assert refusal(URL, "--bench", "-x", "1") == "--exec does not go with --bench"
        assert refusal(URL, "--bench", "-w", "1") == "--wait does not go with --bench"


def test_the_documentation_names_each_command_option_and_status() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
    commands = [line.split()[0] for line in HELP.splitlines()[1:]]
    options = [f"--{option.rstrip('=')}" for option in parse(URL).longOpt]
    for name in {*commands, *options} - {"--help", "--version"}:
        assert name in page
    for status in Status:
        assert f"\n| {status.value} | " in page
