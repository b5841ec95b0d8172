"""Files that a supervisor read and hands to its workers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from twisted_beastws.service.handover import Handed, absolute, read_files

HERE = os.path.abspath(".")


class TestAbsolute:
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
    def test_names_each_file_by_its_whole_path(self, description: str, expected: str) -> None:
        assert absolute(description) == expected
        assert absolute(expected) == expected


class TestFiles:
    def test_are_read_wherever_they_are_named(self, tmp_path: Path) -> None:
        contents = {str(tmp_path / name): name for name in ("key", "certificate", "authorities")}
        for path, content in contents.items():
            Path(path).write_text(content)
        description = f"ssl:443:privateKey={tmp_path}/key:certKey={tmp_path}/certificate"
        assert read_files([description, "tcp:80"], f"{tmp_path}/authorities", None) == contents

    @pytest.mark.skipif(sys.platform != "linux", reason="FILES THAT ARE HANDED OVER ARE NOT TESTED: they need Linux")
    def test_can_be_read_whatever_became_of_them(self, tmp_path: Path) -> None:
        every_byte = bytes(range(256))
        (tmp_path / "key").write_bytes(every_byte)
        description = f"ssl:443:privateKey={tmp_path}/key"
        handed = Handed(read_files([description]))
        (tmp_path / "key").unlink()
        path = handed.path(f"{tmp_path}/key")
        assert handed.description(description) == f"ssl:443:privateKey={path}"
        for _ in range(2):
            assert Path(path).read_bytes() == every_byte

    def test_that_were_not_handed_over_are_read_where_they_are(self) -> None:
        assert Handed({}).path("/a") == "/a"
        assert Handed({}).description("ssl:443:privateKey=/a") == "ssl:443:privateKey=/a"
