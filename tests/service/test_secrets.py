"""Passwords that the list of processes does not show."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from twisted_beastws.service import Options, makeService
from twisted_beastws.service.secrets import MAX_SIZE, read_secret

from ..support import command_line
from ..support.waiting import await_that
from .test_twistd import RawClient, running

pytest.importorskip("txredisapi", reason="THE BACKPLANE'S PASSWORD IS NOT TESTED: pip install txredisapi hiredis")

URL = "redis://ann:s3cret@127.0.0.1:1/0"

parse = partial(command_line.parse, Options)
refusal = partial(command_line.refusal, Options)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BEASTWS_BACKPLANE", "BEASTWS_AUTH"):
        monkeypatch.delenv(name, raising=False)


class TestFiles:
    """Secrets in files."""

    @pytest.mark.parametrize("content", [URL, f"{URL}\n", f"\ufeff{URL} \r\nmore\n"])
    def test_the_first_line_is_the_secret(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "url").write_text(content, encoding="utf-8")
        assert read_secret(f"file:{tmp_path}/url") == URL
        assert parse(f"--backplane=file:{tmp_path}/url")["backplane"] == URL

    @pytest.mark.parametrize(
        ("content", "why"),
        [(b"", "its first line is empty"), (b"\nx", "its first line is empty"), (b"\xff", "not UTF-8")],
    )
    def test_a_file_without_secret_is_refused(self, tmp_path: Path, content: bytes, why: str) -> None:
        (tmp_path / "url").write_bytes(content)
        assert refusal(f"--backplane=file:{tmp_path}/url") == f"--backplane: {tmp_path}/url: {why}"

    def test_a_missing_file_is_reported(self) -> None:
        assert refusal("--backplane=file:/nope") == "--backplane: /nope: No such file or directory"

    def test_the_content_of_a_bad_file_is_not_shown(self, tmp_path: Path) -> None:
        (tmp_path / "url").write_text("s3cret")
        assert "s3cret" not in refusal(f"--backplane=file:{tmp_path}/url")

    def test_a_file_is_read_only_up_to_the_length_of_a_secret(self, tmp_path: Path) -> None:
        for size in (MAX_SIZE - 1, MAX_SIZE, MAX_SIZE + 1):
            (tmp_path / "url").write_bytes(b"x" * size)
            assert len(read_secret(f"file:{tmp_path}/url")) == min(size, MAX_SIZE)


class TestEnvironment:
    """Secrets in environment variables."""

    def test_the_environment_may_have_the_backplane_and_the_logins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BEASTWS_BACKPLANE", URL)
        monkeypatch.setenv("BEASTWS_AUTH", "memory:ann:s3cret")
        options = parse()
        assert options["backplane"] == URL
        assert len(options["auth"]) == 1 and options.checkers is not None
        assert options.visible == []

    def test_the_environment_overrides_the_file_and_the_command_line_overrides_both(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        config = tmp_path / "beastws.toml"
        config.write_text("backplane = 'redis://file'")
        assert parse(f"--config={config}")["backplane"] == "redis://file"
        monkeypatch.setenv("BEASTWS_BACKPLANE", "redis://environment")
        assert parse(f"--config={config}")["backplane"] == "redis://environment"
        assert parse(f"--config={config}", "--backplane=redis://line")["backplane"] == "redis://line"

    @pytest.mark.parametrize(
        ("name", "value", "why"),
        [
            ("BEASTWS_BACKPLANE", "http://s3cret", "the URL is not that of a Redis or a PostgreSQL: give redis://"),
            ("BEASTWS_AUTH", "nope:s3cret", "give one of file, memory, unix"),
        ],
    )
    def test_a_bad_variable_is_named_without_the_secret(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
    ) -> None:
        monkeypatch.setenv(name, value)
        told = refusal()
        assert told.startswith(f"{name}: {why}") and "s3cret" not in told


class TestCommandLine:
    """Secrets on the command line."""

    @pytest.mark.parametrize(
        ("given", "visible"),
        [
            ((f"--backplane={URL}",), ["backplane"]),
            (("--backplane", URL, "--auth=memory:ann:s3cret"), ["auth", "backplane"]),
            (("--backplane=redis://127.0.0.1:1/0",), []),
        ],
    )
    def test_a_visible_password_is_logged_as_a_warning(
        self, given: tuple[str, ...], visible: list[str], logged: Callable[..., list[Any]]
    ) -> None:
        options = parse(*given, "--listen=unix:/tmp/x")
        assert options.visible == visible
        makeService(options)
        assert len(logged(type(None))) == len(visible)

    def test_the_command_line_of_a_worker_has_no_password(self, tmp_path: Path) -> None:
        (tmp_path / "beastws.toml").write_text(f"backplane = '{URL}'\nauth = 'memory:ann:s3cret'\n")
        with running(tmp_path, "--config=beastws.toml", "--workers=2") as service:
            children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
            await_that("both workers are there", lambda: len(children.read_text().split()) >= 2)
            with RawClient(service) as client:
                # One of them serves: by then the supervisor handles signals.
                assert client.read_head().startswith(b"HTTP/1.1 401 ")
            for pid in (service.process.pid, *children.read_text().split()):
                assert b"s3cret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert "s3cret" not in service.log
