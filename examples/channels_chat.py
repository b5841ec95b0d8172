"""A Django Channels chat with rooms: ``python channels_chat.py [--listen tcp:9013]``.

The same application under the service: ``twistd -n beastws --app asgi:channels_chat:application``. The consumer is a
synchronous one: Channels runs its methods in threads, and its groups are the rooms.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import django
from asgiref.sync import async_to_sync
from channels.generic.websocket import JsonWebsocketConsumer
from channels.routing import URLRouter
from django.conf import settings
from django.urls import path

settings.configure(
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    SECRET_KEY="only an example",
)
django.setup()


class Chat(JsonWebsocketConsumer):  # type: ignore[misc]
    """A member of one room."""

    def connect(self) -> None:
        self.room = "room_" + self.scope["url_route"]["kwargs"]["room"]
        async_to_sync(self.channel_layer.group_add)(self.room, self.channel_name)
        self.accept()

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        async_to_sync(self.channel_layer.group_send)(self.room, {"type": "said", "text": content["text"]})

    def said(self, event: dict[str, Any]) -> None:
        """A member of the group said something."""
        self.send_json({"text": event["text"]})

    def disconnect(self, code: int) -> None:
        async_to_sync(self.channel_layer.group_discard)(self.room, self.channel_name)


application = URLRouter([path("chat/<slug:room>", Chat.as_asgi())])


async def main(reactor: Any, listen: str) -> None:
    from twisted.internet.defer import Deferred
    from twisted.internet.endpoints import serverFromString
    from twisted.internet.interfaces import IListeningPort

    from twisted_beastws import ASGIFactory

    factory = ASGIFactory(application)
    port: IListeningPort = await serverFromString(reactor, listen).listen(factory)
    reactor.addSystemEventTrigger("before", "shutdown", factory.drain)
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:9013", help="an endpoint string (default: %(default)s)")
    options = parser.parse_args()
    # ASGI applications run on asyncio: the reactor must, too.
    from twisted.internet import asyncioreactor

    asyncioreactor.install()
    from twisted.internet.task import react
    from twisted.logger import globalLogBeginner, textFileLogObserver

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [options.listen])
