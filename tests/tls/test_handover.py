"""Files that a supervisor read and hands to its workers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from twisted_beastws.service import Options
from twisted_beastws.tls.handover import Handed, absolute, read_files

from ..support.certificates import identity_pem

HERE = os.path.abspath(".")


class TestAbsolute:
    """Endpoint descriptions with absolute paths."""

    @pytest.mark.parametrize(
        ("description", "expected"),
        [
            ("tcp:80", "tcp:80"),
            ("unix:relative", "unix:relative"),
            ("ssl:443", f"ssl:443:privateKey={HERE}/server.pem"),
            ("ssl:443:k.pem", f"ssl:443:privateKey={HERE}/k.pem"),
            ("ssl:443:k.pem:c.pem", f"ssl:443:privateKey={HERE}/k.pem:certKey={HERE}/c.pem"),
            ("ssl:443:certKey=c.pem:k.pem", f"ssl:443:certKey={HERE}/c.pem:privateKey={HERE}/k.pem"),
            (
                "haproxy:ssl:443:interface=127.0.0.1:privateKey=a/k.pem:extraCertChain=/x/chain.pem:dhParameters=d",
                f"haproxy:ssl:443:interface=127.0.0.1:privateKey={HERE}/a/k.pem:extraCertChain=/x/chain.pem"
                f":dhParameters={HERE}/d",
            ),
            (r"ssl:443:privateKey=/a\:b\\c", r"ssl:443:privateKey=/a\:b\\c"),
            ("ssl:443:privateKey=/a=b", r"ssl:443:privateKey=/a\=b"),
        ],
    )
    def test_each_file_has_its_absolute_path(self, description: str, expected: str) -> None:
        assert absolute(description) == expected
        assert absolute(expected) == expected


class TestFiles:
    """The files that a worker gets."""

    def test_files_are_read_for_each_option_that_names_them(self, tmp_path: Path) -> None:
        contents = {str(tmp_path / name): name for name in ("key", "certificate", "authorities")}
        for path, content in contents.items():
            Path(path).write_text(content)
        description = f"ssl:443:privateKey={tmp_path}/key:certKey={tmp_path}/certificate"
        assert read_files([description, "tcp:80"], f"{tmp_path}/authorities", None) == contents

    @pytest.mark.skipif(sys.platform != "linux", reason="FILES THAT ARE HANDED OVER ARE NOT TESTED: they need Linux")
    def test_files_are_readable_after_a_handover(self, tmp_path: Path) -> None:
        every_byte = bytes(range(256))
        (tmp_path / "key").write_bytes(every_byte)
        description = f"ssl:443:privateKey={tmp_path}/key"
        handed = Handed(read_files([description]))
        (tmp_path / "key").unlink()
        path = handed.path(f"{tmp_path}/key")
        assert handed.description(description) == f"ssl:443:privateKey={path}"
        for _ in range(2):
            assert Path(path).read_bytes() == every_byte

    def test_other_files_are_read_at_their_path(self) -> None:
        assert Handed({}).path("/a") == "/a"
        assert Handed({}).description("ssl:443:privateKey=/a") == "ssl:443:privateKey=/a"


class TestOptions:
    """A worker reads the options of its supervisor, from the command line or the file."""

    SAMPLES: ClassVar[dict[str, str]] = {
        "app": "handover_app:App",
        "path": "/talk",
        "root-path": "/app",
        "backplane": "redis://:secret@localhost:6379/1",
        "client-ca": "ca.pem",
        "proxy-header": "Forwarded",
        "deflate": "level=3",
        "drain-code": "1012",
        "admin": "tcp:9090:interface=127.0.0.1",
        "access-log": "access.log",
        "access-log-format": "json",
    }

    @pytest.mark.parametrize("option", [row[0] for row in Options.optParameters if row[0] != "config"])
    def test_each_value_can_be_read_again(self, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "ca.pem").write_bytes(identity_pem())
        read: Any = next(row[4] for row in Options.optParameters if row[0] == option)
        value = read(self.SAMPLES.get(option, "7"))
        assert read(str(value)) == value

    def test_every_given_option_is_handed_over(self, tmp_path: Path) -> None:
        (tmp_path / "beastws.toml").write_text(
            'origin = ["https://a.example", "https://b.example"]\n'
            "allow-any-origin-dangerously = true\nping-interval = 7\n"
        )
        supervisor = Options()
        supervisor.parseOptions(
            [
                *("--workers=2", "--backplane=redis://:secret@h", "--auth=memory:ann:secret", "--history=0"),
                *(f"--config={tmp_path}/beastws.toml", "--listen=tcp:80", "--listen=unix:/run/a", "--drain-time=2"),
                "--admin=tcp:9090",
            ]
        )
        assert sorted(supervisor.arguments) == [
            "--admin=tcp:9090",
            "--allow-any-origin-dangerously",
            "--auth=memory:ann:secret",
            "--backplane=redis://:secret@h",
            "--drain-time=2.0",
            "--history=0",
            "--listen=tcp:80",
            "--listen=unix:/run/a",
            "--origin=https://a.example",
            "--origin=https://b.example",
            "--ping-interval=7.0",
        ]
