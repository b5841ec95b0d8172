"""Hubs on a real Redis."""

from __future__ import annotations

from typing import Any

import pytest

from twisted_beastws.hub import Hub, PublishError
from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.hub.redis import RedisBackplane

from ..support.loopback import until
from .stubs import Stub


class RealNode:
    def __init__(self, url: str, **options: Any) -> None:
        self.backplane = RedisBackplane(url, **options)
        self.hub = Hub(self.backplane)
        self.hub.start()

    def is_connected(self) -> bool:
        return self.backplane.state is BackplaneState.CONNECTED

    async def joins(self, room: str = "a", **options: Any) -> Stub:
        await until(self.is_connected)
        stub = Stub()
        await self.hub.join(stub.connection, room, **options)
        return stub


async def refusal(hub: Hub, said: str) -> PublishError:
    with pytest.raises(PublishError) as caught:
        await hub.publish("a", said)
    return caught.value
