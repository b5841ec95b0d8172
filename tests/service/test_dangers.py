"""Warnings about settings that let in or show more than most operators want."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from twisted_beastws.service import Options, makeService
from twisted_beastws.service.dangers import can_be_reached, dangers, is_unencrypted
from twisted_beastws.service.option_table import LISTEN

from ..support import command_line

parse = partial(command_line.parse, Options)


def warned(*arguments: str) -> list[str]:
    """The beginnings of the warnings, up to the second colon and space."""
    return [line.partition(": ")[0] for line in dangers(parse(*arguments))]


class TestReach:
    """Which machines reach an endpoint, and whether TLS protects it."""

    @pytest.mark.parametrize(
        "description",
        [
            "tcp:1",
            "tcp6:2",
            "tcp:1:interface=192.0.2.1",
            "tcp:1:interface=0.0.0.0",
            "tcp:0:192.0.2.1",
            "systemd:domain=INET:index=0",
        ],
    )
    def test_a_listener_for_other_machines_without_tls_is_found(self, description: str) -> None:
        assert can_be_reached(description) and is_unencrypted(description)

    @pytest.mark.parametrize(
        "description",
        [
            LISTEN,
            "tcp:1:interface=localhost",
            r"tcp6:1:interface=\:\:1",
            "tcp:1:127.0.0.1",
            "tcp:1:backlog=5:interface=127.0.0.2",
            "unix:/tmp/x",
            "haproxy:tcp:1",
        ],
    )
    def test_a_local_listener_is_not_reported(self, description: str) -> None:
        assert not can_be_reached(description) and not is_unencrypted(description)

    def test_a_listener_with_tls_is_not_reported(self) -> None:
        assert can_be_reached("ssl:443") and not is_unencrypted("ssl:443")


class TestChat:
    """Warnings about the chat."""

    def test_the_default_warns_of_nothing(self) -> None:
        assert warned() == []

    @pytest.mark.parametrize(
        ("given", "lines"),
        [
            (("--listen=tcp:1",), ["--listen=tcp:1"]),
            (("--listen=tcp:1", "--trust-proxy=10.0.0.1"), ["--listen=tcp:1"]),
            (("--listen=tcp:1", "--listen=unix:/tmp/x", "--listen=tcp6:2"), ["--listen=tcp:1", "--listen=tcp6:2"]),
            (("--listen=tcp:1:interface=127.0.0.1",), []),
            (("--listen=tcp:1", "--app=twisted_beastws:WebSocketProtocol"), []),
        ],
    )
    def test_a_chat_without_a_login_is_open_to_the_world(self, given: tuple[str, ...], lines: list[str]) -> None:
        assert warned(*given) == lines

    @pytest.mark.parametrize(
        ("given", "exposed"),
        [
            (("--listen=tcp:1", "--listen=tcp6:2"), ["tcp:1", "tcp6:2"]),
            (("--listen=unix:/tmp/x", "--listen=haproxy:tcp:1", "--listen=tcp:3"), ["tcp:3"]),
            (("--listen=tcp:1", "--trust-proxy=10.0.0.1"), []),
            (("--listen=tcp:1:interface=127.0.0.1",), []),
            (
                ("--listen=tcp:1:interface=192.0.2.1", "--listen=tcp:2:interface=127.0.0.1"),
                ["tcp:1:interface=192.0.2.1"],
            ),
            ((), []),
        ],
    )
    def test_passwords_without_tls_are_found(self, tmp_path: Path, given: tuple[str, ...], exposed: list[str]) -> None:
        path = tmp_path / "passwords"
        path.write_text("ann:secret\n")
        path.chmod(0o600)
        lines = [*dangers(parse(f"--auth=file:{path}", *given))]
        assert [line.partition(" to ")[2].partition(": let it")[0] for line in lines] == exposed
        assert all(line.startswith("--auth: passwords come unencrypted to ") for line in lines)


class TestOthers:
    """Warnings about other options."""

    @pytest.mark.parametrize(
        ("given", "lines"),
        [
            (("--admin=tcp:9090",), ["--admin=tcp:9090"]),
            (("--admin=tcp:9090:interface=127.0.0.1",), []),
            (("--admin=unix:/run/x",), []),
            (("--allow-any-origin-dangerously",), ["--allow-any-origin-dangerously"]),
            (("--allow-null-origin-dangerously",), ["--allow-null-origin-dangerously"]),
            (("--allow-file-origin-dangerously",), ["--allow-file-origin-dangerously"]),
            (("--trust-proxy=0.0.0.0/0",), ["--trust-proxy=0.0.0.0/0"]),
            (("--trust-proxy=::/0", "--trust-proxy=unix"), ["--trust-proxy=::/0"]),
            (("--trust-proxy=10.0.0.0/8",), []),
        ],
    )
    def test_each_danger_has_its_line(self, given: tuple[str, ...], lines: list[str]) -> None:
        assert warned(*given) == lines

    def test_an_api_without_tls_and_a_readable_file_of_tokens_are_reported(self, tmp_path: Path) -> None:
        tokens = tmp_path / "tokens"
        tokens.write_text("0123456789abcdef\n")
        tokens.chmod(0o644)
        given = ("--api=tcp:9091", f"--api-token-file={tokens}")
        assert warned(*given) == ["--api=tcp:9091", str(tokens)]
        tokens.chmod(0o640)
        assert warned("--api=tcp:9091:interface=127.0.0.1", given[1]) == []

    def test_a_readable_file_of_passwords_is_reported(self, tmp_path: Path) -> None:
        path = tmp_path / "passwords"
        path.write_text("ann:secret\n")
        path.chmod(0o604)
        assert warned(f"--auth=file:{path}") == [str(path)]
        path.unlink()
        path.touch()
        os.chmod(path, 0o600)
        assert warned(f"--auth=file:{path}") == []

    def test_the_service_logs_each_warning_at_its_start(self, logged: Callable[..., list[Any]]) -> None:
        makeService(parse("--listen=tcp:1", "--admin=tcp:9090"))
        assert len(logged(type(None))) == 2
