"""The example authentication.py."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from ..support.patience import PATIENCE
from .processes import Example


@pytest.fixture
def passwords(tmp_path: Path) -> str:
    (tmp_path / "passwords").write_text("ada:lovelace\ngrace:hopper\n")
    return "passwords"


def saying(login: str, scheme: str = "Basic") -> dict[str, str]:
    return {"Authorization": f"{scheme} {b64encode(login.encode()).decode()}"}


@pytest.mark.parametrize(("login", "name"), [("ada:lovelace", "ada"), ("grace:hopper", "grace")])
def test_a_known_name_is_a_user(tmp_path: Path, passwords: str, login: str, name: str) -> None:
    with (
        Example("authentication", tmp_path, "--passwords", passwords) as example,
        example.connect(additional_headers=saying(login)) as client,
    ):
        assert client.recv(PATIENCE) == f"Hello, {name}!"
        client.send("something")
        assert client.recv(PATIENCE) == f"{name} said: something"
        response, page = example.fetch("/", saying(login, "bAsIC"))
        assert (response.status, response.headers["Content-Type"]) == (200, "text/html")
        assert "<title>Who am I?</title>" in page


@pytest.mark.parametrize(
    "headers",
    [
        {},
        saying("ada:wrong"),
        saying("eve:lovelace"),
        saying("ada"),
        saying("ada:lovelace", "Bearer"),
        {"Authorization": "Basic"},
        {"Authorization": "Basic \u00ff"},
    ],
)
def test_other_clients_are_asked_for_a_name(tmp_path: Path, passwords: str, headers: dict[str, str]) -> None:
    with Example("authentication", tmp_path, "--passwords", passwords) as example:
        response, text = example.fetch("/", headers)
        assert (response.status, text) == (401, "Who are you?\n")
        assert response.headers["WWW-Authenticate"] == 'Basic realm="example"'
        with pytest.raises(InvalidStatus, match="401"):
            example.connect(additional_headers=headers)
