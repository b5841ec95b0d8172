"""Upload of files, with progress: ``python upload.py [--listen tcp:9007] [--into .]``, http://localhost:9007/.

A file is one binary message of any length. The program writes each part as it arrives, at the disk's pace: it reads
nothing meanwhile. From time to time it sends the number of written bytes. If an upload breaks off, it removes the file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import BinaryIO, ClassVar
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import react
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_beastws import (
    CloseReason,
    Limits,
    Opcode,
    Request,
    Response,
    Timeouts,
    WebSocketProtocol,
    WebSocketServerFactory,
    is_upgrade,
)

PAGE = """<!doctype html>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Upload</title>
<link rel="icon" href="data:,">
<p><input type="file"> <progress value="0" max="1"></progress> <span id="state"></span>
<script>
const [input, progress] = document.querySelectorAll("input, progress")
input.onchange = () => {
  const file = input.files[0]
  const address = location.origin.replace("http", "ws") + "/?name=" + encodeURIComponent(file.name)
  const socket = new WebSocket(address)
  progress.value = 0
  progress.max = file.size
  socket.onopen = () => socket.send(file)
  socket.onmessage = ({data}) => {
    progress.value = data
    state.textContent = `${data} of ${file.size}`
  }
  socket.onclose = ({code, reason}) => state.textContent = code === 1000 ? reason : `failed: ${reason || code}`
}
</script>
"""

STEP = 1 << 18  # bytes between two reports of progress
LIMITS = Limits(max_message_size=16 << 30, max_fragments=None)
TIMEOUTS = Timeouts(message=24 * 3600)
REFUSED = 4000


class Upload(WebSocketProtocol):
    directory: ClassVar[Path]
    file: BinaryIO | None = None
    written = 0

    def http_requested(self, request: Request) -> Response | None:
        if is_upgrade(request):
            return None
        return Response(200, headers={"Content-Type": "text/html"}, body=PAGE)

    def opened(self) -> None:
        assert self.request is not None
        name = parse_qs(self.request.query).get("name", [""])[0]
        # A page can read a close code and its reason, but no HTTP answer other than 101.
        try:
            if not name or name.startswith(".") or Path(name).name != name:
                raise ValueError
            self.file = (self.directory / name).open("xb")
        except FileExistsError:
            self.close(REFUSED, "there is such a file")
        except (OSError, ValueError):
            self.close(REFUSED, "this is no name for a file")

    async def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> None:
        assert self.file is not None
        # Until this is written, the program reads no more: the sender waits, and memory holds only this part.
        await deferToThread(self.file.write, data)
        before, self.written = self.written, self.written + len(data)
        if final:
            self.file.close()
            self.send(str(self.written))
            self.close(reason="stored")
        elif before // STEP < self.written // STEP:
            self.send(str(self.written))

    def closed(self, reason: CloseReason) -> None:
        if self.file is not None and not self.file.closed:
            self.file.close()
            Path(self.file.name).unlink()
            self.log.info("{name} of {peer} broke off: {reason}", name=self.file.name, peer=self.peer, reason=reason)


async def main(reactor: object, listen: str, into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    Upload.directory = into
    factory = WebSocketServerFactory(Upload, limits=LIMITS, timeouts=TIMEOUTS)
    port: IListeningPort = await serverFromString(reactor, listen).listen(factory)
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:9007", help="an endpoint string (default: %(default)s)")
    parser.add_argument("--into", type=Path, default=Path(), help="a directory (default: the current one)")
    options = parser.parse_args()
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [options.listen, options.into])
