"""Options from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.python.usage import UsageError

from twisted_beastws import Origins, Timeouts
from twisted_beastws.server.serving import ShutdownPolicy
from twisted_beastws.service import Options
from twisted_beastws.service.config import ConfigError, read_config

from ..support import command_line
from .test_options import LIMITS

KINDS: Any = {"flags": ["f"], "single": ["ping-interval", "path"], "repeated": ["listen"]}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a file of the text, in the current directory; returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "beastws.toml").write_text(text)
        return "beastws.toml"

    return write


parse = partial(command_line.parse, Options)


class TestFile:
    """The file that ``--config`` names."""

    def test_texts_and_flags_are_read(self, write: Callable[[str], str]) -> None:
        path = write('f = true\nping-interval = 0.5\npath = "/a"\nlisten = ["tcp:1", "tcp:2"]\n')
        assert read_config(path, **KINDS) == {
            "f": [True],
            "ping-interval": ["0.5"],
            "path": ["/a"],
            "listen": ["tcp:1", "tcp:2"],
        }

    def test_a_list_of_one_may_be_written_as_text(self, write: Callable[[str], str]) -> None:
        assert read_config(write('listen = "tcp:1"'), **KINDS) == {"listen": ["tcp:1"]}

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("ping-intervall = 5", "ping-intervall: there is no such option; ping-interval is one"),
            ("ping_interval = 5", "ping_interval: there is no such option; ping-interval is one"),
            ("xyz = 5", "xyz: there is no such option"),
            ('"a\\nb" = 5', "a b: there is no such option"),
            ("config = 'x'", "config: there is no such option"),
            ("[path]\na = 1", "path: give a text in quotes, or a number"),
            ("path = true", "path: give a text in quotes, or a number"),
            ("path = ['/a']", "path: give a text in quotes, or a number"),
            ("listen = [['tcp:1']]", "listen: give a text in quotes, or a number"),
            ("f = 1", "f: give true or false"),
            ("ping-interval = 1979-05-27", "ping-interval: give a text in quotes, or a number"),
        ],
    )
    def test_an_unknown_name_or_a_bad_value_is_refused(self, write: Callable[[str], str], text: str, why: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read_config(write(text), **KINDS)
        assert str(caught.value) == f"beastws.toml: {why}"

    def test_a_file_that_is_not_toml_is_refused(self, write: Callable[[str], str], tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"^beastws.toml: not TOML: .* \(at line 2, column 1"):
            read_config(write("path = '/'\n=\n"), **KINDS)
        (tmp_path / "beastws.toml").write_bytes(b"path = '\xff'")
        with pytest.raises(ConfigError, match=r"^beastws.toml: not TOML: .*decode"):
            read_config("beastws.toml", **KINDS)

    def test_a_missing_file_is_reported(self, write: Callable[[str], str]) -> None:
        with pytest.raises(ConfigError, match=r"^/nope: No such file or directory$"):
            read_config("/nope", **KINDS)


class TestOptions:
    """The options in such a file."""

    def test_every_option_can_be_written_in_the_file(self, write: Callable[[str], str]) -> None:
        path = write("""
            listen = ["tcp:1", "unix:/run/chat"]
            path = "/a"
            origin = ["https://a.example", "https://b.example"]
            allow-any-origin-dangerously = true
            auth = "memory:ann:secret"
            ping-interval = 0.5
            idle-timeout = 9
            handshake-timeout = "2"
            max-message = 1000
            drain-time = 3
            drain-code = 1012
            admin = "tcp:2"
            access-log = "access.log"
            access-log-format = "json"
            max-message-rate = 2.5
            trust-proxy = ["127.0.0.1", "10.0.0.0/8"]
        """)
        options = parse("--config", path)
        assert [description for description, _ in options.endpoints] == ["tcp:1", "unix:/run/chat"]
        assert options["path"] == "/a"
        assert options.origins == Origins(("https://a.example", "https://b.example"), True, True)
        assert options.checkers is not None
        assert options.timeouts == Timeouts(handshake=2, idle=9, ping_interval=0.5, close=5)
        assert options.limits == replace(LIMITS, max_message_size=1000, max_message_rate=2.5)
        assert options["trust-proxy"] == ["127.0.0.1", "10.0.0.0/8"]
        assert options.shutdown_policy == ShutdownPolicy(1012, "the server is restarting", 3.0)
        assert options.admin is not None and options.admin[0] == "tcp:2"
        assert options.access_log is not None and options.access_log.path.endswith("/access.log")

    def test_every_option_of_the_help_can_be_written_in_the_file(self, write: Callable[[str], str]) -> None:
        """Every option is known; an error can only be about its value."""
        for name in (option.rstrip("=") for option in Options().longOpt):
            if name in ("help", "version", "check-config", "config", "hash-password"):
                continue
            try:
                parse("--config", write(f"{name} = 'x'"))
            except UsageError as error:
                assert str(error).startswith(f"--config=beastws.toml: {name}")
                assert "no such option" not in str(error)

    def test_the_command_line_overrides_the_file(self, write: Callable[[str], str]) -> None:
        path = write("""
            listen = "tcp:1"
            origin = "https://a.example"
            ping-interval = 7
            idle-timeout = 40
        """)
        options = parse("--ping-interval=0", "--config", path, "--listen=tcp:3", "--listen=tcp:4")
        assert [description for description, _ in options.endpoints] == ["tcp:3", "tcp:4"]
        assert options.timeouts == Timeouts(handshake=30, idle=40, ping_interval=None, close=5)
        assert options["origin"] == ["https://a.example"]

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("pnig-interval = 5", "pnig-interval: there is no such option; ping-interval is one"),
            ("ping-interval = 'often'", "ping-interval=often: give seconds, such as 5 or 0.5; 0 is never"),
            ("max-message = 1.5", "max-message=1.5: give a number of bytes, 1 or more"),
            ("drain-code = 1000", "drain-code=1000: give 1001, the server goes away, or 1012, it comes back at once"),
            (
                "origin = ['example.com']",
                "origin=example.com: 'example.com' is the origin of no page: it has no scheme; "
                "write 'https://example.com'",
            ),
            ("auth = 'file:/nope'", "auth=file: /nope: there is no such file"),
            (
                "listen = 'foo:1'",
                "listen=foo:1: not an endpoint string, such as tcp:1984: Unknown endpoint type: 'foo'",
            ),
            ("admin = 'foo:1'", "admin=foo:1: not an endpoint string, such as tcp:1984: Unknown endpoint type: 'foo'"),
            ("app = 'nonsense'", "app=nonsense: give it as package.module:name"),
            (
                "idle-timeout = 5",
                "idle-timeout=5 is not more than --ping-interval=5: a silent client would be closed before its first "
                "ping",
            ),
        ],
    )
    def test_a_mistake_is_reported_in_one_line_with_file_and_name(
        self, write: Callable[[str], str], text: str, line: str
    ) -> None:
        with pytest.raises(UsageError) as caught:
            parse("--config", write(text))
        assert str(caught.value) == f"--config=beastws.toml: {line}"
