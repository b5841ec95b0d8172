"""ASGI WebSocket applications on Twisted: Django Channels, Starlette, FastAPI, Quart, Socket.IO.

`ASGIFactory` serves an application on any endpoint; ``twistd beastws --app asgi:package.module:application`` serves it
without a program.
"""

from __future__ import annotations

from twisted_beastws.asgi.events import Disconnected
from twisted_beastws.asgi.factory import ASGIFactory
from twisted_beastws.asgi.lifespan import LifespanFailed

__all__ = ["ASGIFactory", "Disconnected", "LifespanFailed"]
