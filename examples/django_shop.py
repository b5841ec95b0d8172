"""A Django program that publishes to browsers: ``python django_shop.py [--port 8000] [--token-file tokens]``.

Each order that Django gets appears at once on every open page. The pages have WebSockets to a service, whose HTTP API
Django calls with a token. Django itself needs no WebSocket and no asyncio. Start the service first:

    openssl rand -hex 32 > tokens
    twistd -n beastws --origin http://localhost:8000 --api tcp:9091:interface=127.0.0.1 --api-token-file tokens
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from pathlib import Path
from socketserver import ThreadingMixIn
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen
from wsgiref.simple_server import WSGIServer, make_server

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import path

settings.configure(ALLOWED_HOSTS=["localhost", "127.0.0.1"], ROOT_URLCONF=__name__, SECRET_KEY="only an example")
django.setup()

ROOM = "orders"
TRIES = 3
"""Attempts to publish an order, while the service cannot reach its backplane."""

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Orders</title>
<link rel="icon" href="data:,">
<h1>Orders</h1>
<p id="state" role="status"></p>
<ul></ul>
<script>
const list = document.querySelector("ul"), state = document.querySelector("#state")
let last = "0-0"

function watch() {
  // The service first sends the orders since the last one that this page has seen.
  const socket = new WebSocket(`CHAT/ROOM?after=${last}`, "chat.v1+json")
  socket.onopen = () => state.textContent = "live"
  socket.onclose = () => { state.textContent = "lost, trying again"; setTimeout(watch, 1000) }
  socket.onmessage = ({data}) => {
    const event = JSON.parse(data)
    if (event.type !== "message") return
    last = event.id ?? last
    list.append(Object.assign(document.createElement("li"), {textContent: event.text}))
  }
}

watch()
</script>
"""


class Refused(Exception):
    """The API did not publish a message; the text has its reason."""


class Publisher:
    """Publishes through the API of the service.

    Args:
        api: the API's address.
        token: one of those in the service's ``--api-token-file``.
    """

    def __init__(self, api: str, token: str) -> None:
        self._api = api
        self._token = token

    def publish(self, text: str) -> str:
        """Publish a text and return its id. Raises `Refused`."""
        # Repeated with the same key, a message is published once.
        message = {"room": ROOM, "data": text, "name": "Shop", "key": str(uuid.uuid4())}
        for attempt in range(1, TRIES + 1):
            try:
                return str(self._post(message)["id"])
            except HTTPError as error:
                reason = json.load(error)["error"]
                if error.code != 503 or attempt == TRIES:
                    raise Refused(f"{reason['code']}: {reason['message']}") from None
            except URLError as error:
                if attempt == TRIES:
                    raise Refused(f"the service does not answer: {error.reason}") from None
            time.sleep(0.5)
        raise AssertionError

    def _post(self, message: dict[str, str]) -> dict[str, object]:
        fields = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = Request(f"{self._api}/api/publish", json.dumps(message).encode(), fields)
        with urlopen(request, timeout=10) as response:
            answer: dict[str, object] = json.load(response)
        return answer


def show(request: HttpRequest) -> HttpResponse:
    """The page."""
    return HttpResponse(PAGE.replace("CHAT", arguments.chat).replace("ROOM", ROOM))


def order(request: HttpRequest) -> HttpResponse:
    """Take an order: the request's body is its text."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    publisher = Publisher(arguments.api, Path(arguments.token_file).read_text().split()[0])
    try:
        return HttpResponse(f"{publisher.publish(request.body.decode())}\n", content_type="text/plain")
    except Refused as error:
        return HttpResponse(f"{error}\n", status=502, content_type="text/plain")


class Server(ThreadingMixIn, WSGIServer):
    """Browsers keep connections open on which they ask for nothing."""

    daemon_threads = True


urlpatterns = [path("", show), path("orders", order)]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000, help="port of the pages on this machine")
    parser.add_argument("--chat", default="ws://localhost:1984/chat", help="address of the chat, for browsers")
    parser.add_argument("--api", default="http://127.0.0.1:9091", help="address of the service's API")
    parser.add_argument("--token-file", default="tokens", help="file whose first line is a token of the API")
    arguments = parser.parse_args()
    with make_server("127.0.0.1", arguments.port, get_wsgi_application(), Server) as server:
        print(f"serving http://localhost:{server.server_port}/", flush=True)
        server.serve_forever()
