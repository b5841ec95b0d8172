"""Files of passwords, hashed and plain."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from twisted_beastws.server.gates import passwords
from twisted_beastws.server.gates.login import Login
from twisted_beastws.server.gates.passwords import BYTE_ORDER_MARK, Hash, PasswordFile, password_line
from twisted_beastws.server.gates.slow_calls import SlowCalls

# RFC 7914 §12: the second of its vectors, P="password", S="NaCl", N=1024, r=8, p=16.
VECTOR = (
    b"$scrypt$ln=10,r=8,p=16$TmFDbA$"
    b"/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWIurzDZLiKjiG/xCSedmDDaxyevuUqD7m2DYMvfoswGQA"
)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that take no time."""
    monkeypatch.setattr(passwords, "LOG2_N", 1)


class Hashing:
    """Counts the hashes that are computed, at once or when they are `finished`."""

    def __init__(self, at_once: bool = True) -> None:
        self.count = 0
        self.waiting: list[Deferred[Any]] = []
        self._at_once = at_once

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        self.count += 1
        if self._at_once:
            return maybeDeferred(function, *arguments)
        self.waiting.append(Deferred())
        return self.waiting[-1]


class TestHashes:
    """RFC 7914 §6: passwords hashed with scrypt."""

    def test_a_test_vector_of_rfc_7914_is_accepted(self) -> None:
        assert Hash.parse(VECTOR).matches(b"password")
        assert not Hash.parse(VECTOR).matches(b"Password")
        assert Hash.parse(VECTOR).to_bytes() == VECTOR

    def test_the_default_cost_is_that_of_owasp(self) -> None:
        hashed = Hash.of(b"secret")
        assert hashed[:3] == (14, 8, 5)
        assert len(hashed.salt) == 16 and len(hashed.digest) == 32
        assert Hash.parse(hashed.to_bytes()).matches(b"secret")

    def test_each_hash_has_its_own_salt(self, cheap: None) -> None:
        assert Hash.of(b"secret") != Hash.of(b"secret")

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (b"$scrypt$", "form"),
            (b"$scrypt$ln=10,r=8,p=16$TmFDbA", "form"),
            (b"$scrypt$ln=10,r=8,p=16$TmFDbA$!", "form"),
            (b"$scrypt$ln=10,r=8,p=16$TmFDb$YQ", "base64"),
            (b"$scrypt$ln=0,r=8,p=1$TmFDbA$YQ", "cost"),
            (b"$scrypt$ln=10,r=0,p=1$TmFDbA$YQ", "cost"),
            (b"$scrypt$ln=10,r=1,p=0$TmFDbA$YQ", "cost"),
            (b"$scrypt$ln=99,r=8,p=1$TmFDbA$YQ", "cost"),
            # 256 MiB, and a little more.
            (b"$scrypt$ln=18,r=8,p=1$TmFDbA$YQ", "cost"),
        ],
    )
    def test_an_invalid_hash_is_refused(self, text: bytes, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            Hash.parse(text)

    def test_owasps_most_costly_parameters_are_accepted(self) -> None:
        assert Hash.parse(b"$scrypt$ln=17,r=8,p=1$TmFDbA$YWFhYQ").log2_n == 17


class File:
    def __init__(self, directory: Path, hashing: Hashing | None = None) -> None:
        self.path = directory / "passwords"
        self.hashing = hashing or Hashing()
        self.checker = PasswordFile(str(self.path), SlowCalls(self.hashing))

    def write(self, *lines: str | bytes, start: bytes = b"", end: bytes = b"\n") -> None:
        octets = [line.encode() if isinstance(line, str) else line for line in lines]
        self.path.write_bytes(start + end.join(octets) + end)

    def knows(self, name: str, password: str) -> bool:
        results: list[Any] = []
        self.checker.requestAvatarId(Login(name.encode(), password.encode())).addBoth(results.append)
        (result,) = results
        if isinstance(result, Failure):
            result.trap(UnauthorizedLogin)
            return False
        assert result == name.encode()
        return True


@pytest.fixture
def file(tmp_path: Path, cheap: None) -> File:
    return File(tmp_path)


@pytest.mark.usefixtures("logged")
class TestFiles:
    """Files of names and passwords."""

    def test_a_plain_password_is_accepted(self, file: File) -> None:
        file.write("ann:secret", "bob:x:y")
        assert file.knows("ann", "secret") and file.knows("bob", "x:y")
        assert not any(file.knows(*login) for login in (("ann", "x"), ("ann", ""), ("eve", ""), ("", ""), ("bob", "x")))
        assert file.hashing.count == 0

    def test_a_hashed_password_is_accepted(self, file: File) -> None:
        file.write(b"ann:" + Hash.of(b"secret").to_bytes(), "bob:plain")
        assert file.knows("ann", "secret") and file.knows("bob", "plain")
        assert not file.knows("ann", "other")

    def test_the_hash_itself_is_refused_as_a_password(self, file: File) -> None:
        hashed = Hash.of(b"secret").to_bytes()
        file.write(b"ann:" + hashed)
        assert not file.knows("ann", hashed.decode())

    def test_an_unknown_name_takes_as_long_as_a_wrong_password(self, file: File) -> None:
        file.write(b"ann:" + Hash.of(b"secret").to_bytes())
        assert not file.knows("eve", "secret")
        assert file.hashing.count == 1
        assert not file.knows("ann", "wrong")
        assert file.hashing.count == 2

    def test_a_login_that_was_right_is_not_hashed_again(self, file: File) -> None:
        hashed = Hash.of(b"secret").to_bytes()
        file.write(b"ann:" + hashed)
        assert all(file.knows("ann", "secret") for _ in range(3))
        assert file.hashing.count == 1
        assert not any(file.knows("ann", "wrong") for _ in range(3))
        assert file.hashing.count == 4

    def test_a_remembered_login_is_refused_once_the_file_changes(self, file: File) -> None:
        file.write(b"ann:" + Hash.of(b"secret").to_bytes())
        assert file.knows("ann", "secret")
        file.write(b"ann:" + Hash.of(b"changed").to_bytes())
        assert not file.knows("ann", "secret") and file.knows("ann", "changed")
        file.write("bob:plain")
        assert not file.knows("ann", "changed")

    @pytest.mark.parametrize(("logins", "hashed"), [(2, 4), (3, 6)])
    def test_a_limited_number_of_right_logins_is_remembered(
        self, file: File, monkeypatch: pytest.MonkeyPatch, logins: int, hashed: int
    ) -> None:
        monkeypatch.setattr(passwords, "MAX_KNOWN", 2)
        names = [f"user{number}" for number in range(logins)]
        file.write(*(f"{name}:".encode() + Hash.of(b"secret").to_bytes() for name in names))
        for _ in range(2):
            assert all(file.knows(name, "secret") for name in names)
        assert file.hashing.count == (logins if logins <= 2 else hashed)

    def test_comment_lines_are_ignored(self, file: File) -> None:
        file.write("# ann: our first user", "#bob:secret", "", ":", ":empty", "no colon", "ann:secret")
        assert file.knows("ann", "secret")
        assert not any(
            file.knows(*login) for login in (("#bob", "secret"), ("# ann", " our first user"), ("", "empty"))
        )

    def test_a_byte_order_mark_is_ignored(self, file: File) -> None:
        file.write("ann:secret", "bob:x", start=BYTE_ORDER_MARK, end=b"\r\n")
        assert file.knows("ann", "secret") and file.knows("bob", "x")

    def test_the_first_line_of_a_name_is_used(self, file: File) -> None:
        file.write("ann:first", "ann:second")
        assert file.knows("ann", "first") and not file.knows("ann", "second")

    def test_a_damaged_hash_is_logged_and_accepts_no_password(
        self, file: File, logged: Callable[..., list[Any]]
    ) -> None:
        file.write("ann:$scrypt$damaged", "bob:plain")
        assert not file.knows("ann", "$scrypt$damaged") and file.knows("bob", "plain")
        assert len(logged(type(None))) == 1

    def test_the_file_is_read_again_only_when_it_changed(self, file: File, monkeypatch: pytest.MonkeyPatch) -> None:
        parsed: list[bytes] = []
        # Only the number of calls shows that an unchanged file is not parsed again.
        parse = PasswordFile._parse

        def parse_counted(self: PasswordFile, data: bytes) -> object:
            parsed.append(data)
            return parse(self, data)

        monkeypatch.setattr(PasswordFile, "_parse", parse_counted)
        file.write("ann:secret")
        for _ in range(3):
            assert file.knows("ann", "secret")
        assert len(parsed) == 1
        os.utime(file.path, (1, 1))
        assert file.knows("ann", "secret")
        # Settled since 1970: from now on it is not even opened.
        monkeypatch.setattr("builtins.open", lambda *_: pytest.fail("opened"))
        assert file.knows("ann", "secret")
        monkeypatch.undo()
        file.write("ann:other!")
        assert file.knows("ann", "other!")

    def test_a_change_of_the_same_size_at_the_same_time_is_noticed(self, file: File) -> None:
        for password in ("first1", "second"):
            file.write(f"ann:{password}")
            assert file.knows("ann", password)

    def test_a_missing_file_is_logged_once_and_read_when_it_is_back(
        self, file: File, logged: Callable[..., list[Any]]
    ) -> None:
        file.write("ann:secret")
        assert file.knows("ann", "secret")
        file.path.unlink()
        assert not any(file.knows("ann", "secret") for _ in range(3))
        assert len(logged(type(None))) == 1
        file.write("ann:secret")
        assert file.knows("ann", "secret")


def answers(*given: str) -> Callable[[str], str]:
    left = list(given)
    return lambda _: left.pop(0)


class TestLines:
    """The command that prints a line for such a file."""

    def test_a_printed_line_is_accepted_in_a_file(self, tmp_path: Path, cheap: None) -> None:
        file = File(tmp_path)
        file.write(password_line("J\u00f6rg", answers("p\u00e4ss:word", "p\u00e4ss:word")))
        assert file.knows("J\u00f6rg", "p\u00e4ss:word")

    @pytest.mark.parametrize(
        ("name", "given", "why"),
        [
            ("", (), "a name has"),
            ("a:b", (), "a name has"),
            ("#a", (), "a name has"),
            ("a\n", (), "a name has"),
            ("a", ("",), "a password has"),
            ("a", ("x\0",), "a password has"),
            ("a", ("x", "y"), "differ"),
        ],
    )
    def test_an_unusable_name_or_password_is_refused(self, name: str, given: Sequence[str], why: str) -> None:
        with pytest.raises(ValueError, match=why):
            password_line(name, answers(*given))
