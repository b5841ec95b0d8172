"""Attack the chat of ``twistd beastws``, while a witness in another room asks for its own words.

``python -m benchmarks.attacks.chat flood`` starts the service on the loopback interface with members in ``/chat``,
attacks it once, and prints how long the witness waited at worst, and how many honest clients the service closed:

- ``flood``: an attacker sends a chunk of 10,922 empty texts. If the room takes more than 100 a second, the service
  closes the attacker after 1000 of them and a few seconds' worth. With ``--max-chat-rate=0`` it takes them all.
- ``leave``: half of the members, who have names, leave at once.
- ``join``: so many members with names join, one after the other.
- ``who``: an attacker asks without pause for the names of a room with so many members.

With ``--terminate`` the service gets SIGTERM a second after the attack began, and it prints how long the end took.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import time

from benchmarks.attacks.clients import Readers, Witness, connect, cpu_seconds
from benchmarks.attacks.service import service_running
from benchmarks.frames import TEXT, frame, read_message
from benchmarks.process import raise_descriptors

MESSAGES = (1 << 16) // 6
"""Empty texts in 64 KiB, the chunk that a transport of Twisted reads at once: 10,922."""
PAUSE = 0.05
"""Seconds between two requests for the number of members; the service allows 100 requests a second."""
QUESTIONS = 100
"""Requests for names that an attacker sends at once."""
CLOSE = 8
SUBPROTOCOL = "chat.v1+json"
GATHERED = 2.5
"""Seconds until the service has sent the last notices of joins and leaves."""


def ask(connection: socket.socket) -> None:
    """Send a text to a room, and wait until it comes back."""
    connection.sendall(frame(TEXT, b"witness"))
    payload = None
    while payload != b"witness":
        payload, _ = read_message(connection)


def attack(options: argparse.Namespace, port: int, process: subprocess.Popen[bytes]) -> float:
    """Attack once; print what happened, and return the witness's longest wait."""

    def member(number: int | None = None) -> socket.socket:
        if number is None:
            return connect(port, "/chat", options.patience)
        return connect(port, f"/chat?name=member{number}", options.patience, SUBPROTOCOL)

    named = options.attack != "flood"
    count = 0 if options.attack == "join" else options.members
    # Start the witness's process first: if it inherited the members' sockets, they would stay open.
    witness = Witness(connect(port, "/chat/quiet", options.patience), process.pid, ask)
    members = [member(number if named else None) for number in range(count)]
    leaving = members[: count // 2] if options.attack == "leave" else []
    groups = [Readers(members[len(leaving) :])]
    attackers = [member(count if named else None) for _ in range(options.attackers)]
    time.sleep(GATHERED)

    began, cpu = time.monotonic(), cpu_seconds(process.pid)
    if options.attack == "flood":
        for attacker in attackers:
            attacker.sendall(frame(TEXT, b"") * MESSAGES)
    elif options.attack == "who":
        for attacker in attackers:
            attacker.sendall(frame(TEXT, b'{"type":"who"}') * QUESTIONS)
    elif options.attack == "join":
        groups.append(Readers([member(number) for number in range(options.members)]))
    for connection in leaving:
        connection.close()
    if options.terminate:
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        terminated = time.monotonic()
        process.wait(options.patience)
        print(f"the service ended {time.monotonic() - terminated:.2f} s after SIGTERM, by {process.returncode}")
        return 0.0
    if named:
        await_count(attackers[0], count - len(leaving) + len(attackers) + (len(groups) > 1) * options.members)
        time.sleep(GATHERED)
    else:
        for attacker in attackers:
            await_messages(attacker, MESSAGES)
    cpu, took = cpu_seconds(process.pid) - cpu, time.monotonic() - began
    testimony = witness.stop()
    closed = sum(group.closed for group in groups)
    received = sum(group.received for group in groups)
    for group in groups:
        group.stop()
    for attacker in attackers:
        attacker.close()
    print(f"the attack cost the service {cpu:.2f} s of CPU, in {took:.1f} s; members received {received} bytes")
    print(
        f"the witness waited at most {1000 * testimony.worst:.0f} ms, in which the service used "
        f"{1000 * testimony.worst_cpu:.0f} ms of CPU ({testimony.answers} answers)"
    )
    if testimony.failure:
        print(f"the witness was cut off: {testimony.failure}")
    print(f"members that the service closed: {closed}")
    return testimony.worst if testimony.failure is None and not closed else float("inf")


def await_messages(attacker: socket.socket, count: int) -> None:
    """Read the attacker's own empty texts until all have come back, or the service closes the connection."""
    data = b""
    while data.count(frame_head(TEXT)) < count and frame_head(CLOSE) not in data:
        part = attacker.recv(1 << 16)
        if not part:
            return
        data += part


def await_count(asking: socket.socket, count: int) -> None:
    """Ask for the members of the room until it has ``count`` of them."""
    found = -1
    while found != count:
        time.sleep(PAUSE)
        asking.sendall(frame(TEXT, b'{"type":"who","after":"zzz","ref":"count"}'))
        event: dict[str, object] = {}
        while event.get("ref") != "count":
            # The frame may be a ping, which has no payload.
            event = json.loads(read_message(asking)[0] or b"{}")
        found = int(str(event["count"]))


def frame_head(opcode: int) -> bytes:
    """Return the first byte of a server's frame. The bytes of empty texts never equal that of a close frame."""
    return bytes((0x80 | opcode,))


def main() -> None:
    """Run the attack that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attacks.chat",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("attack", choices=("flood", "leave", "join", "who"))
    parser.add_argument("--members", type=int, default=500, help="members of the room attacked (default: 500)")
    parser.add_argument("--attackers", type=int, default=1, help="connections that attack at once (default: 1)")
    parser.add_argument("--uvloop", action="store_true", help="run the service on twisted_beastws.uvreactor")
    parser.add_argument("--terminate", action="store_true", help="send SIGTERM during the attack")
    parser.add_argument("--patience", type=float, default=60.0, help="give up after so many seconds (default: 60)")
    parser.add_argument("--most", type=float, help="exit with 1 if the witness waits longer than so many seconds")
    options, options.service = parser.parse_known_args()
    raise_descriptors()
    with service_running(options.uvloop, "--max-handshakes-per-address=0", *options.service) as (port, process):
        worst = attack(options, port, process)
    if options.most is not None and worst > options.most:
        sys.exit(f"the witness waited {worst:.3f} s, or an honest client was closed")


if __name__ == "__main__":
    main()
