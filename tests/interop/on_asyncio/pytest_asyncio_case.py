"""pytest-asyncio: ``pytest pytest_asyncio_case.py``. Its loop runs the reactor, and each test is an asyncio Task.

The fixture that starts the reactor is the listing in the documentation's page about asyncio.
"""

from __future__ import annotations

import asyncio

import pytest

pytestmark = pytest.mark.asyncio


async def test_a_task_talks() -> None:
    from steps import serving, talk

    async with serving() as url:
        await asyncio.wait_for(talk(url), 60)


async def test_receive_times_out_and_loses_nothing() -> None:
    from steps import serving

    from twisted_beastws import connect

    async with serving() as url:
        ws = await connect(url)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ws.receive(), 0.01)
        ws.send("a")
        assert await ws.receive() == "a"
        await ws.close()
