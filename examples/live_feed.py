"""A live feed, and a page that plots it: ``python live_feed.py [--listen tcp:9006]``, http://localhost:9006/.

Twenty times a second, a measurement goes to all viewers. The program frames and compresses it once for all of them. A
viewer that reads too slowly misses some measurements. A new viewer first gets the latest ones.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import deque

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall, react
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_beastws import (
    Deflate,
    Limits,
    Request,
    Response,
    State,
    WebSocketProtocol,
    WebSocketServerFactory,
    is_upgrade,
    prepare,
)

PAGE = """<!doctype html>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Live feed</title>
<link rel="icon" href="data:,">
<style>
  body { margin: 1rem; font: 1rem system-ui, sans-serif; color-scheme: light dark; }
  canvas { width: 100%; height: 16rem; border: 1px solid #8888; }
</style>
<p><b id="latest"></b> <span id="state"></span></p>
<canvas></canvas>
<script>
const canvas = document.querySelector("canvas"), pen = canvas.getContext("2d"), kept = 600
let values = []

function watch() {
  const socket = new WebSocket(location.origin.replace("http", "ws"))
  socket.onopen = () => { values = []; state.textContent = "live" }
  socket.onclose = () => { state.textContent = "lost, trying again"; setTimeout(watch, 1000) }
  socket.onmessage = ({data}) => {
    values = values.concat(JSON.parse(data)).slice(-kept)
    latest.textContent = values.at(-1)?.toFixed(2)
  }
}

function draw() {
  const width = canvas.width = canvas.clientWidth * devicePixelRatio
  const height = canvas.height = canvas.clientHeight * devicePixelRatio
  const low = Math.min(...values), span = Math.max(...values) - low || 1
  pen.strokeStyle = "#2f5fd0"
  pen.lineWidth = 2 * devicePixelRatio
  values.forEach((value, at) => pen.lineTo(at / kept * width, height * (.95 - .9 * (value - low) / span)))
  pen.stroke()
  requestAnimationFrame(draw)
}

watch()
draw()
</script>
"""

# Compression makes short messages longer, but the first message of a new viewer much shorter.
DEFLATE = Deflate(threshold=64)
LIMITS = Limits(max_message_size=1 << 12, max_buffered=1 << 16, slow_reader="drop")


class Viewer(WebSocketProtocol):
    def http_requested(self, request: Request) -> Response | None:
        if is_upgrade(request):
            return None
        return Response(200, headers={"Content-Type": "text/html"}, body=PAGE)

    def opened(self) -> None:
        self.send(json.dumps(list(feed.latest)))

    def text_received(self, text: str) -> None:
        """Ignore the messages of viewers."""


class Feed:
    def __init__(self) -> None:
        self.latest: deque[float] = deque(maxlen=600)
        self.factory = WebSocketServerFactory(Viewer, deflate=DEFLATE, limits=LIMITS)

    def measure(self) -> None:
        last = self.latest[-1] if self.latest else 20.0
        value = round(last + random.gauss((20.0 - last) / 50, 0.5), 2)
        self.latest.append(value)
        message = prepare(json.dumps([value]))
        for viewer in list(self.factory.connections):
            if viewer.state is State.OPEN:
                viewer.send(message)


feed = Feed()


async def main(reactor: object, listen: str) -> None:
    port: IListeningPort = await serverFromString(reactor, listen).listen(feed.factory)
    print("listening on", port.getHost(), flush=True)
    await LoopingCall(feed.measure).start(0.05)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:9006", help="an endpoint string (default: %(default)s)")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [parser.parse_args().listen])
