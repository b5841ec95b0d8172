"""``--check-config``: a line for each fault, and the exit status."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from twisted_beastws.service import Options

from ..support.certificates import new_identity
from ..support.patience import PATIENCE
from .test_twistd import ENVIRONMENT, TWISTD

IN_ORDER = "The configuration is in order"


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., object]:
    """Checks a command line in a directory of its own; returns the status and the lines."""
    monkeypatch.chdir(tmp_path)

    def check(*arguments: str) -> tuple[object, list[str]]:
        with pytest.raises(SystemExit) as ended:
            Options().parseOptions([*arguments, "--check-config"])
        return ended.value.code, capsys.readouterr().out.splitlines()

    return check


Check = Callable[..., tuple[object, list[str]]]


class TestInOrder:
    """Configurations without a fault."""

    def test_the_defaults_are_in_order(self, check: Check) -> None:
        assert check() == (0, [IN_ORDER])

    def test_a_warning_is_no_fault(self, check: Check) -> None:
        status, (warning, last) = check("--listen=tcp:1984")
        assert (status, last) == (0, IN_ORDER)
        assert warning.startswith("warning: --listen=tcp:1984: everyone who can reach this machine can read and write")

    def test_an_abbreviated_option_works(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            Options().parseOptions(["--check-con"])
        assert (ended.value.code, capsys.readouterr().out) == (0, f"{IN_ORDER}\n")

    def test_the_configuration_in_deploy_is_in_order(self, check: Check, tmp_path: Path) -> None:
        deployed = (Path(__file__).parents[2] / "deploy" / "beastws.toml").read_text()
        (tmp_path / "beastws.toml").write_text(deployed.replace("/var/log/beastws", str(tmp_path)))
        assert check("--config=beastws.toml") == (0, [IN_ORDER])

    def test_nothing_listens_and_nothing_is_written(self, check: Check, tmp_path: Path) -> None:
        given = ("--listen=unix:socket", "--admin=unix:admin", "--access-log=access.log", "--listen=haproxy:tcp:1")
        assert check(*given) == (0, [IN_ORDER])
        assert [*tmp_path.iterdir()] == []


class TestFaults:
    """Configurations with faults."""

    def test_each_fault_has_its_line(self, check: Check, tmp_path: Path) -> None:
        (tmp_path / "passwords").write_text("# users\nann:secret\n\nbob\ncem:$scrypt$ln=99\n")
        (tmp_path / "tokens").write_text("short\n")
        (tmp_path / "key.pem").write_text("no key")
        (tmp_path / "beastws.toml").write_text(
            'ping-interval = "often"\nno-such = 1\npath = 5\norigin = ["example.com", "http://a.example"]\n'
            'trust-proxy = ["10.0.0.0/33"]\n'
        )
        status, lines = check(
            "--config=beastws.toml",
            "--listen=tcp:http-port-that-is-none",
            "--listen=ssl:443:privateKey=key.pem",
            "--listen=unix:/no/such/directory/socket",
            "--admin=nonsense",
            "--api=tcp:0",
            "--api-token-file=tokens",
            "--auth=file:passwords",
            "--auth=file:missing",
            "--auth=jwt:jwks=missing.json",
            "--backplane=redis://",
            "--client-ca=missing.pem",
            "--max-message=0",
            "--workers=2",
            "--access-log=/no/such/directory/log",
        )
        assert status == 1
        expected = [
            "--auth=file: missing: there is no such file",
            "--auth=jwt: missing.json: No such file or directory",
            "--backplane: ",
            "--client-ca=missing.pem: No such file or directory",
            "--max-message=0: give a number of bytes, 1 or more",
            "--config=beastws.toml: no-such: there is no such option",
            "--config=beastws.toml: ping-interval=often: give seconds",
            "--config=beastws.toml: path=5: give a path",
            "--config=beastws.toml: origin=example.com: ",
            "--config=beastws.toml: trust-proxy=10.0.0.0/33: ",
            "--listen=tcp:http-port-that-is-none: ",
            "--listen=ssl:443:privateKey=key.pem: certKey= is missing",
            "--admin=nonsense: not an endpoint string",
            "--api-token-file=tokens: line 1: ",
            "--listen=unix:/no/such/directory/socket: there is no directory /no/such/directory",
            f"--auth=file: {tmp_path}/passwords, line 4: it is not of the form name:password",
            f"--auth=file: {tmp_path}/passwords, line 5: this hash lets no one in: ",
            "--access-log=/no/such/directory/log: there is no directory /no/such/directory",
        ]
        missing = [start for start in expected if not any(line.startswith(start) for line in lines)]
        assert missing == [] and len(lines) == len(expected), "\n".join(lines)

    @pytest.mark.parametrize(
        ("given", "line"),
        [
            (("--workers=2",), "--workers=2: the chat's processes need --backplane, which joins them"),
            (("--idle-timeout=5",), "--idle-timeout=5 is not more than --ping-interval=5: "),
            (("--api=tcp:0",), "--api needs --api-token-file, "),
            (("--no-such-option",), "option --no-such-option not recognized"),
            (("word",), "word: beastws takes options only"),
            (("--app=no_such_module:app",), "--app=no_such_module:app: there is no module no_such_module"),
            (("--config=missing.toml",), "--config=missing.toml: No such file or directory"),
            (("--listen=systemd:domain=INTE:index=0",), "--listen=systemd:domain=INTE:index=0: give it as systemd:"),
        ],
    )
    def test_one_fault_is_one_line(self, check: Check, given: tuple[str, ...], line: str) -> None:
        status, (found,) = check(*given)
        assert status == 1 and found.startswith(line)

    def test_a_certificate_that_clients_refuse_is_reported(self, check: Check, tmp_path: Path) -> None:
        (tmp_path / "key.pem").write_bytes(new_identity(-timedelta(hours=1)))
        status, (line,) = check("--listen=ssl:443:privateKey=key.pem")
        assert status == 1
        assert line.startswith("--listen=ssl:443:privateKey=key.pem: clients refuse its certificate: ")

    def test_the_start_still_ends_with_the_first_fault(self) -> None:
        with pytest.raises(UsageError, match=r"^--max-message=0: "):
            Options().parseOptions(["--max-message=0", "--max-head=0"])

    def test_a_missing_socket_of_systemd_ends_the_start(self) -> None:
        with pytest.raises(UsageError, match=r"systemd passed no such socket: start the service by its unit$"):
            Options().parseOptions(["--listen=systemd:domain=INET:index=0"])


def test_twistd_exits_with_the_status(tmp_path: Path) -> None:
    for given, status in (("--max-head=0", 1), ("--max-head=1000", 0)):
        done = subprocess.run(
            [str(TWISTD), "beastws", given, "--check-config"],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (status, "", 1)
