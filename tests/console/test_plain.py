"""The client without termios, as on Windows: a thread reads the lines."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest.mock import MagicMock

import pytest

from twisted_beastws.console.pipes import Pipes
from twisted_beastws.console.threaded import ThreadedIO

from ..support.patience import PATIENCE
from ..support.waiting import await_that
from .processes import ENVIRONMENT, Heard, echo_only, serving

# Hide the modules that Windows lacks, or that Twisted offers there only with another package.
WITHOUT = (
    "import runpy, sys; sys.modules.update(dict.fromkeys(['termios', 'tty', 'twisted.internet.stdio'])); "
    "sys.argv[0] = 'twisted_beastws'; runpy.run_module('twisted_beastws', run_name='__main__')"
)
COMMAND = [sys.executable, "-c", WITHOUT]


def run(*arguments: str, typed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *arguments], input=typed, env=ENVIRONMENT, capture_output=True, timeout=PATIENCE, check=False
    )


class TestPipes:
    """Input and output are pipes."""

    def test_each_line_is_a_message(self) -> None:
        with serving(echo_only(5)) as url:
            done = run(url, "--wait=forever", typed="one\r\n/two\nJ\u00f6rg\n\nlast".encode())
        assert (done.returncode, done.stdout.decode()) == (0, "one\n/two\nJ\u00f6rg\n\nlast\n"), done.stderr

    def test_a_script_leaves_the_input_alone(self) -> None:
        with serving(echo_only(2)) as url:
            done = run(url, "--wait=forever", "--exec=hello", "--exec=/binary 00ff", typed=b"not this\n")
        assert (done.returncode, done.stdout) == (0, b"hello\n00ff\n"), done.stderr

    def test_many_lines_are_sent_whole_and_in_order(self) -> None:
        lines = [f"{number} {'x' * 1000}" for number in range(2000)]
        with serving(heard := Heard()) as url:
            done = run(url, "--wait=0", typed="\n".join(lines).encode())
        assert done.returncode == 0, done.stderr
        assert heard.messages == lines

    def test_input_that_is_not_utf_8_is_refused(self) -> None:
        with serving(heard := Heard()) as url:
            done = run(url, "--wait=0", typed=b"good\n\xff\nlate\n")
        assert (done.returncode, heard.messages) == (3, ["good"])
        assert b"line 2 of the input is not UTF-8" in done.stderr

    def test_a_server_that_leaves_ends_the_client_while_it_waits_for_input(self) -> None:
        def leave(ws: Any) -> None:
            ws.close(4000, "bye")

        with serving(leave) as url:
            process = subprocess.Popen(
                [*COMMAND, url], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            try:
                assert process.wait(PATIENCE) == 3
                assert process.stderr is not None and b"Fatal" not in process.stderr.read()
            finally:
                process.kill()
                process.communicate()


class TestPrompt:
    """Input and output are a terminal."""

    def test_lines_are_messages_and_commands(self) -> None:
        with serving(heard := Heard()) as url:
            master, slave = pty.openpty()
            process = subprocess.Popen([*COMMAND, url], env=ENVIRONMENT, stdin=slave, stdout=slave, stderr=slave)
            os.close(slave)
            shown = bytearray()

            def read() -> None:
                with suppress(OSError):
                    while data := os.read(master, 4096):
                        shown.extend(data)

            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            try:
                await_that("it is connected", lambda: b"/help lists the commands" in shown)
                os.write(master, b"hello\n/binary 00\n//slash\n\n/nope\n/ping\n")
                await_that("they are heard", lambda: heard.messages == ["hello", b"\0", "/slash"])
                await_that("the pong is shown", lambda: b"pong after " in shown)
                await_that("what is no command is refused", lambda: b"/nope: no such command" in shown)
                heard.ws.send("from the server \x1b[2J")
                await_that("it is shown, and harmless", lambda: rb"from the server \x1b[2J" in shown)
                os.write(master, b"/close 4000 bye\n")
                assert process.wait(PATIENCE) == 0, shown
                await_that("the server knows why", lambda: heard.closed == (4000, "bye"))
            finally:
                process.kill()
                process.wait()
                os.close(master)


class User:
    def __init__(self) -> None:
        self.commands: list[Any] = []
        self.ended: list[bool] = []
        self.stopped = False

    def command(self, command: Any) -> None:
        self.commands.append(command.message)

    def input_ended(self, complete: bool = True) -> None:
        self.ended.append(complete)

    def stopProducing(self) -> None:
        self.stopped = True


class Reactor:
    """A reactor that runs the calls from threads when the test calls ``turn()``."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], object]] = []
        self.came = threading.Semaphore(0)

    def later(self, call: Callable[..., object], *arguments: Any) -> None:
        self._calls.append(lambda: call(*arguments))
        self.came.release()

    def turn(self) -> None:
        assert self.came.acquire(timeout=PATIENCE)
        self._calls.pop(0)()

    @property
    def idle(self) -> bool:
        return not self._calls


@pytest.fixture
def pipe() -> Any:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with suppress(OSError):
            os.close(descriptor)


def test_a_paused_client_reads_no_input(pipe: tuple[int, int]) -> None:
    reactor, user = Reactor(), User()
    front = Pipes(True, None, 100, lambda protocol, _: ThreadedIO(protocol, pipe[0], reactor.later))
    front.start(user)  # type: ignore[arg-type]
    os.write(pipe[1], b"one\n")
    front.pauseProducing()
    # The line that was being read is still delivered; the next one is not read.
    reactor.turn()
    assert user.commands == ["one"]
    os.write(pipe[1], b"two\n")
    assert not reactor.came.acquire(timeout=0.05) and reactor.idle
    front.resumeProducing()
    reactor.turn()
    assert user.commands == ["one", "two"]
    os.close(pipe[1])
    reactor.turn()
    assert user.ended == [True]


def test_a_closed_output_stops_the_producer(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.RawIOBase):
        def write(self, data: Any) -> int:
            raise BrokenPipeError

    reactor, user = Reactor(), User()
    front = Pipes(True, None, 100, lambda protocol, _: ThreadedIO(protocol, pipe[0], reactor.later))
    front.start(user)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdout", type("Output", (), {"buffer": Gone()}))
    front.message("hello")
    assert user.stopped
    stopped: list[Any] = []
    front.stop().addCallback(stopped.append)
    reactor.turn()
    assert stopped == [None]
    os.close(pipe[1])
    reactor.turn()
    assert user.ended == []


def test_a_script_does_not_end_with_the_null_device() -> None:
    ends: list[bool] = []
    pipes = Pipes(False, None, 1000, lambda protocol, stdin: MagicMock())
    pipes.start(MagicMock(input_ended=ends.append))
    pipes.readConnectionLost()
    assert ends == []
