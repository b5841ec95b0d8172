"""`Hub.send_command` and `Hub.take_commands`."""

from __future__ import annotations

import pytest

from twisted_beastws import Hub
from twisted_beastws.hub import LocalBackplane


class TestCommands:
    """Commands from one hub to all, through the backplane."""

    def test_commands_are_passed_to_the_function_in_order_and_to_no_room(self) -> None:
        hub = Hub()
        got: list[str] = []
        assert hub.take_commands(got.append).called
        for command in ("one", "two"):
            assert hub.send_command(command).called
        assert (got, hub.rooms) == (["one", "two"], {})

    def test_a_hub_without_a_function_ignores_commands(self) -> None:
        assert Hub().send_command("one").called

    def test_a_failure_of_the_function_is_logged(self) -> None:
        hub = Hub(LocalBackplane())
        hub.take_commands(lambda command: 1 / 0)
        assert hub.send_command("one").called

    @pytest.mark.parametrize("room", ["\0", "\0commands"])
    def test_the_room_of_the_commands_cannot_be_joined(self, room: str) -> None:
        with pytest.raises(ValueError, match="names that begin with NUL are the hub's own"):
            Hub().publish(room, "x")
