"""The file of tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from twisted_beastws.service.api.tokens import MIN_LENGTH, TokenFile

TOKEN = "0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"# the shop\n{TOKEN}\n\n  {'x' * 40}==  \n")
    return file


class TestTokenFile:
    """The file that ``--api-token-file`` names."""

    @pytest.mark.parametrize(
        ("field", "accepted"),
        [
            (f"Bearer {TOKEN}", True),
            (f"bearer  {TOKEN} ", True),
            (f"Bearer {'x' * 40}==", True),
            (f"Bearer {TOKEN}f", False),
            (f"Bearer {TOKEN[:-1]}", False),
            (TOKEN, False),
            ("Bearer ", False),
            ("Bearer # the shop", False),
            (f"Basic {TOKEN}", False),
            ("Bearer \u00e9", False),
        ],
    )
    def test_only_the_tokens_of_the_file_are_accepted(self, file: Path, field: str, accepted: bool) -> None:
        assert TokenFile(str(file)).accepts(field.encode()) is accepted

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("", "give 1 to 1000 tokens"),
            ("# none\n", "give 1 to 1000 tokens"),
            ("a" * (MIN_LENGTH - 1), "line 1: give 16 or more"),
            ("#\nwith a space in it\n", "line 2: give 16 or more"),
            ("\n".join(f"{number:016}" for number in range(1001)), "give 1 to 1000 tokens"),
        ],
    )
    def test_an_invalid_file_is_refused_without_its_content(self, tmp_path: Path, text: str, error: str) -> None:
        (tmp_path / "tokens").write_text(text)
        with pytest.raises(ValueError, match=error) as caught:
            TokenFile(str(tmp_path / "tokens"))
        assert "with a space" not in str(caught.value)

    def test_a_thousand_tokens_of_sixteen_characters_are_accepted(self, tmp_path: Path) -> None:
        (tmp_path / "tokens").write_text("\n".join(f"{number:016}" for number in range(1000)))
        assert TokenFile(str(tmp_path / "tokens")).accepts(b"Bearer 0000000000000999")

    def test_a_change_applies_to_the_next_request(self, file: Path) -> None:
        tokens = TokenFile(str(file))
        file.write_text("another-token-of-the-file\n")
        assert not tokens.accepts(f"Bearer {TOKEN}".encode())
        assert tokens.accepts(b"Bearer another-token-of-the-file")

    @pytest.mark.parametrize("broken", ["short\n", None])
    def test_a_file_that_breaks_leaves_the_last_tokens_valid(self, file: Path, broken: str | None) -> None:
        tokens = TokenFile(str(file))
        if broken is None:
            file.unlink()
        else:
            file.write_text(broken)
        assert tokens.accepts(f"Bearer {TOKEN}".encode())
