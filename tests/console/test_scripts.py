"""The client with pipes, as scripts use it."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection

from ..support.certificates import Authority
from ..support.handshakes import switching
from ..support.patience import PATIENCE
from ..support.ports import free_port
from ..support.turns import in_turns
from ..support.waiting import await_that
from .processes import COMMAND, ENVIRONMENT, Heard, answering, echo, echo_only, piped, run, server_context, serving


def after(seconds: float, value: Callable[[], int]) -> int:
    time.sleep(seconds)
    return value()


class TestMessages:
    """Messages from and to pipes."""

    def test_messages_are_sent_and_printed(self) -> None:
        with serving(echo_only(3)) as url:
            script = ("-x", "/ping", "--exec", "hello", "-x", "/binary 00ff", "-x", "//x")
            status, out, err = run(url, *script, "--wait=forever")
        assert (status, out) == (0, "hello\n00ff\n/x\n")
        connected, pong, closed = err.splitlines()
        assert connected.startswith(f"connected to {url} in ")
        assert pong.startswith("pong after ")
        assert closed.startswith("closed by the server: 1000 (normal); the latest round trip took ")
        assert "\x1b" not in err

    def test_each_line_of_the_input_is_a_text(self) -> None:
        heard = Heard()
        with serving(heard) as url:
            status, out, _ = run(url, "-w0", stdin="one\r\n/close 4000\n\n grüß\nlast")
        assert (status, out) == (0, "")
        assert heard.messages == ["one", "/close 4000", "", " grüß", "last"]

    def test_texts_are_printed_unchanged(self) -> None:
        def say(ws: ServerConnection) -> None:
            ws.send("\x1b[2J\u202e{\n}")

        with serving(say) as url:
            assert run(url, "--wait=forever")[1] == "\x1b[2J\u202e{\n}\n"

    def test_many_messages_are_sent_and_printed(self) -> None:
        lines = "".join(f"line {number}\n" for number in range(20_000))
        with serving(echo_only(20_000)) as url:
            status, out, _ = run(url, "--wait=forever", stdin=lines)
        assert status == 0
        assert out == lines

    def test_late_input_is_sent_and_late_answers_are_printed(self) -> None:
        def answer(ws: ServerConnection) -> None:
            message = ws.recv()
            time.sleep(0.3)
            ws.send(message)

        with serving(answer) as url, piped(url, f"--wait={PATIENCE:g}") as client:
            time.sleep(0.5)
            assert client.communicate(b"late\n", PATIENCE)[0] == b"late\n"
            assert client.returncode == 0

    def test_a_file_is_sent(self, tmp_path: Path) -> None:
        (tmp_path / "data").write_bytes(b"\xff" * 300_000)
        (tmp_path / "text").write_text("grüß\n", encoding="utf-8")
        heard = Heard()
        with serving(heard) as url:
            assert run(url, "-w0", "-x", f"/send {tmp_path}/data", "-x", f"/send-text {tmp_path}/text")[0] == 0
        assert heard.messages == [b"\xff" * 300_000, "grüß\n"]

    def test_headers_and_subprotocols_are_sent(self) -> None:
        seen = []

        def look(ws: ServerConnection) -> None:
            seen.append(ws.request.headers.get_all("X-Token"))  # type: ignore[union-attr]

        with serving(look, subprotocols=["chat.v2"]) as url:
            arguments = ("-H", "X-Token: a", "-H", "x-token: b", "-s", "chat.v1", "-s", "chat.v2")
            err = run(url, *arguments)[2]
        assert seen == [["a", "b"]]
        assert ", subprotocol chat.v2\n" in err

    def test_a_server_that_chooses_no_subprotocol_is_accepted(self) -> None:
        with serving(echo) as url:
            asked, unasked = (run(url, *arguments, "-w0", "-x", "1")[2] for arguments in (["-s", "chat.v1"], []))
        assert asked.splitlines()[0].endswith(" ms, no subprotocol chosen")
        assert "subprotocol" not in unasked

    def test_redirects_are_followed(self) -> None:
        with serving(echo_only(1)) as url:
            answer = f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n"
            with answering(answer.encode()) as port:
                status, out, _ = run(f"ws://localhost:{port}/", "--wait=forever", "-x", "hello")
        assert (status, out) == (0, "hello\n")

    def test_credentials_are_not_shown(self) -> None:
        with serving(echo) as url:
            err = run(url.replace("://", "://user:secret@"), "-w0", "-x", "1")[2]
        assert "connected to ws://localhost:" in err and "secret" not in err


class TestStatus:
    """The exit status."""

    def test_a_clean_close_before_everything_was_sent_is_a_failure(self) -> None:
        with serving(lambda ws: None) as url, piped(url) as client:
            assert client.wait(PATIENCE) == 3
            assert client.stderr.read().endswith(b"closed by the server: 1000 (normal)\n")

    def test_input_that_is_not_utf_8_is_a_failure(self) -> None:
        heard = Heard()
        with serving(heard) as url:
            status, _, err = run(url, "-w0", stdin=b"one\n\xff\nthree\n")
        assert status == 3
        assert "line 2 of the input is not UTF-8, which a text message is\n" in err
        assert heard.messages == ["one"]

    def test_a_line_that_is_too_long_is_a_failure(self) -> None:
        heard = Heard()
        with serving(heard) as url:
            status, _, err = run(url, "-w0", stdin=b"one\n" + b"x" * (18 << 20))
        assert status == 3
        assert "line 2 of the input is longer than 16777216 bytes\n" in err
        assert heard.messages == ["one"]

    def test_a_missing_file_is_a_failure(self) -> None:
        with serving(echo) as url:
            status, _, err = run(url, "-w0", "-x", "/send /nope")
        assert status == 3
        assert "/nope: No such file or directory\n" in err

    def test_a_bad_command_line_is_status_2(self) -> None:
        status, out, err = run("localhost:1984")
        assert (status, out) == (2, "")
        assert err == (
            "Usage: python -m twisted_beastws [options] URL\n"
            "not a WebSocket URL: 'localhost:1984' does not begin with ws:// or wss://\n"
            "Try python -m twisted_beastws --help.\n"
        )

    def test_a_server_that_breaks_the_protocol_is_a_failure(self) -> None:
        def speak(ws: ServerConnection) -> None:
            ws.socket.sendall(b"\x83\x00")
            ws.recv()

        with serving(speak) as url:
            status, _, err = run(url, "-w", "5")
        assert status == 3
        assert "the server broke the protocol: reserved opcode; closed with 1002 (protocol error)" in err

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_the_connection_is_closed_by_signals(self, number: int) -> None:
        heard = Heard()
        with serving(heard) as url, piped(url, "--wait=forever", stdin=subprocess.DEVNULL) as client:
            client.stderr.readline()
            await_that("it is connected", lambda: heard.ws)
            client.send_signal(number)
            # The status depends on whether the client sees the end of the input before the signal.
            assert client.wait(PATIENCE) in (0, 3)
            await_that("the server hears it", lambda: heard.closed == (1000, ""))

    def test_an_interrupt_while_connecting_ends_the_client(self) -> None:
        def silent(connection: socket.socket) -> None:
            connection.recv(1 << 16)
            client.send_signal(signal.SIGINT)
            client.wait(PATIENCE)

        with answering(silent) as port, piped(f"ws://localhost:{port}/") as client:
            assert client.wait(PATIENCE) == 130
            assert client.stderr.read() == b""


class TestNoConnection:
    """Connections that do not open, with their explanations."""

    def told(self, *arguments: str) -> str:
        status, out, err = run(*arguments, "-x", "hello")
        assert (status, out) == (1, "")
        (line,) = err.splitlines()
        return line

    def test_a_refused_connection_is_explained(self) -> None:
        port = free_port()
        assert self.told(f"ws://localhost:{port}/") == f"localhost:{port} refuses connections: nothing listens there"

    def test_a_404_is_explained(self) -> None:
        body = b"No chat here\nmore"
        answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        with answering(answer) as port:
            told = self.told(f"ws://localhost:{port}/nope")
        assert told == f"localhost:{port} answered 404 Not Found: No chat here"

    def test_another_protocol_is_explained(self) -> None:
        with answering(b"220 mail.example ESMTP\r\n\r\n") as port:
            told = self.told(f"ws://localhost:{port}/")
        assert told == f"localhost:{port} does not speak HTTP; if it speaks TLS, the URL begins with wss://"

    def test_an_absent_response_is_explained(self) -> None:
        with answering(b"") as port:
            told = self.told(f"ws://localhost:{port}/")
        assert told == (
            f"localhost:{port} closed the connection without an HTTP answer; if it speaks TLS, the URL begins with wss://"
        )

    def test_a_server_of_tls_is_explained(self, tmp_path: Path) -> None:
        with serving(echo, ssl=server_context(tmp_path)) as url:
            told = self.told(url.replace("wss:", "ws:"))
        assert told.endswith("if it speaks TLS, the URL begins with wss://")

    def test_a_server_without_tls_is_explained(self) -> None:
        with serving(echo) as url:
            told = self.told(url.replace("ws:", "wss:"))
        assert told.endswith(" the URL begins with ws://")

    def test_an_untrusted_certificate_is_explained(self, tmp_path: Path) -> None:
        context, names, hello = server_context(tmp_path), [], ("-x", "hello", "--wait=forever")
        context.sni_callback = lambda _, name, __: names.append(name)
        with serving(echo_only(1), ssl=context) as url:
            told = self.told(url)
            assert told.startswith("the certificate for localhost cannot be accepted: no authority")
            assert told.endswith("; --cacert trusts its authority, --insecure anybody")
            assert run(url, "--insecure", *hello)[:2] == (0, "hello\n")
            # The client sends no server name for an IP address.
            assert run(url.replace("localhost", "127.0.0.1"), "-k", *hello)[:2] == (0, "hello\n")
        assert names == ["localhost", "localhost", None]


class TestCertificates:
    """Certificates of the server and of the client."""

    def test_certificates_are_trusted_and_presented(self, tmp_path: Path) -> None:
        ours = Authority("ours")
        authorities, server, ann = (str(tmp_path / f"{name}.pem") for name in ("authorities", "server", "ann"))
        Path(authorities).write_bytes(ours.pem)
        Path(server).write_bytes(ours.issue("server"))
        Path(ann).write_bytes(ours.issue("ann"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server)
        context.load_verify_locations(authorities)
        context.verify_mode = ssl.CERT_REQUIRED
        with serving(echo_only(1), ssl=in_turns(context)) as url:
            for arguments in ((f"--cacert={authorities}", f"--cert={ann}"), ("-k", f"--cert={ann}")):
                assert run(url, *arguments, "-x", "hello", "--wait=forever")[:2] == (0, "hello\n")
            status, _, err = run(url, f"--cacert={authorities}", "-x", "hello")
            assert status == 1
            assert err.endswith(" asks for a client's certificate; --cert gives one\n")
            assert run(url, f"--cert={ann}", "-x", "hello")[0] == 1

    def test_a_certificate_is_not_presented_to_another_host(self, tmp_path: Path) -> None:
        """After a redirect to another host, the client does not present its certificate."""
        ours, ann, seen = Authority("ours"), str(tmp_path / "ann.pem"), []
        Path(ann).write_bytes(ours.issue("ann"))
        (tmp_path / "authorities.pem").write_bytes(ours.pem)
        context = server_context(tmp_path)
        context.load_verify_locations(tmp_path / "authorities.pem")
        context.verify_mode = ssl.CERT_OPTIONAL

        def see(ws: ServerConnection) -> None:
            assert isinstance(ws.socket, ssl.SSLSocket)
            seen.append(bool(ws.socket.getpeercert()))

        def redirect(ws: ServerConnection, request: Request) -> Response | None:
            assert isinstance(ws.socket, ssl.SSLSocket)
            seen.append(bool(ws.socket.getpeercert()))
            return Response(302, "Found", Headers({"Location": urls[0], "Content-Length": "0"}))

        urls: list[str] = []
        with serving(see, ssl=context) as there:
            urls.append(there.replace("localhost", "127.0.0.1"))
            with serving(echo, ssl=context, process_request=redirect) as here:
                assert run(here, "-k", f"--cert={ann}", "-w5", "-x", "hello")[0] == 0
        assert seen == [True, False]


class TestPipes:
    """Pipes that are shared, closed or full."""

    def test_a_script_leaves_the_input_alone(self) -> None:
        reading, writing = os.pipe()
        os.write(writing, b"for somebody else\n")
        with serving(echo) as url:
            subprocess.run(
                [*COMMAND, url, "-w0", "-x", "1"], env=ENVIRONMENT, stdin=reading, timeout=PATIENCE, check=True
            )
        assert os.read(reading, 100) == b"for somebody else\n"
        os.close(reading)
        os.close(writing)

    def test_shared_pipes_are_left_blocking(self) -> None:
        reading, writing = os.pipe()
        with serving(echo) as url, piped(url, "-w0", stdin=reading) as client:
            await_that("it reads", lambda: not os.get_blocking(reading))
            os.close(writing)
            assert client.wait(PATIENCE) == 0
        assert os.get_blocking(reading)
        os.close(reading)

    def test_the_client_is_ended_if_its_output_is_closed(self) -> None:
        heard = Heard()
        with serving(heard) as url, piped(url, "--wait=forever", "-x", "1") as client:
            await_that("it is connected", lambda: heard.messages)
            client.stdout.close()
            with suppress(ConnectionClosed):  # The client may have left already.
                heard.ws.send("for nobody")
            assert client.wait(PATIENCE) == 0
            assert b"Traceback" not in client.stderr.read()
            await_that("the server hears it", lambda: heard.closed == (1001, ""))

    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
    def test_closed_descriptors_cause_no_failure(self, closed: str) -> None:
        heard = Heard()
        with serving(heard) as url:
            command = " ".join([*COMMAND, url, "-w0", "-x", "hello", closed])
            done = subprocess.run(command, shell=True, env=ENVIRONMENT, capture_output=True, timeout=PATIENCE)
        assert done.returncode == 0
        assert b"Traceback" not in done.stderr
        assert heard.messages == ["hello"]

    def test_a_server_that_does_not_read_stops_the_input(self) -> None:
        def unreading(connection: socket.socket) -> None:
            connection.sendall(switching(connection.recv(1 << 16)))
            client.wait(PATIENCE)

        def filled() -> bool:
            """Try to write for a second; return whether the pipe stayed full."""
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                try:
                    os.write(client.stdin.fileno(), (b"x" * 1023 + b"\n") * 64)
                except BlockingIOError:
                    time.sleep(0.01)
                else:
                    return False
            return True

        with answering(unreading) as port, piped(f"ws://localhost:{port}/") as client:
            os.set_blocking(client.stdin.fileno(), False)
            assert client.stderr.readline().startswith(b"connected")
            await_that("it reads no more", filled)
            client.kill()
            # The client reported no error, so it paused reading; its buffer did not overflow.
            assert client.stderr.read() == b""

    def test_an_output_that_is_not_read_stops_the_server(self) -> None:
        sent = 0

        def flood(ws: ServerConnection) -> None:
            nonlocal sent
            while True:
                ws.send("x" * (1 << 16))
                sent += 1 << 16

        with serving(flood) as url, piped(url, "--wait=forever", "-x", "1") as client:
            await_that("it begins", lambda: sent)
            await_that("it stops", lambda: sent == after(1.0, lambda: sent))
            client.kill()
        assert sent < 32 << 20
