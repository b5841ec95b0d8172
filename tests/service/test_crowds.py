"""Large rooms of the chat, over real TCP: what one member does costs the clients in other rooms little.

``python -m benchmarks.attacks.chat`` does the same with 500 members and more.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ..support.patience import PATIENCE
from .test_twistd import UPGRADE, Service, many_files, running

if sys.platform != "linux":
    pytestmark = pytest.mark.skip(reason="CROWDS ARE NOT TESTED: CPU time is read from /proc")

__all__ = ["many_files"]

MEMBERS = 150
MESSAGES = 700
SHARE = 0.1
"""Seconds of the service's CPU time in which a client of another room has its answer.

All messages to all members take about 0.7 s of it.
"""


def connected(service: Service, target: str, subprotocol: bool = False) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", service.port), PATIENCE)
    field = b"Sec-WebSocket-Protocol: chat.v1+json\r\n\r\n" if subprotocol else b"\r\n"
    client.sendall(UPGRADE.replace(b"/chat", target.encode())[:-2] + field)
    received = b""
    while b"welcome" not in received.lower():
        data = client.recv(1 << 12)
        assert data, received
        received += data
    assert received.startswith(b"HTTP/1.1 101 ")
    return client


def cpu_seconds(service: Service) -> float:
    """CPU time of the service: a busy machine does not lengthen it."""
    pid = service.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def answered(service: Service, witness: socket.socket) -> float:
    """Say something and hear it; returns the CPU time that the service took meanwhile."""
    began = cpu_seconds(service)
    witness.sendall(b"\x81\x85\0\0\0\0hello")
    heard = b""
    while len(heard) < 7:
        data = witness.recv(7 - len(heard))
        assert data, "the witness was closed"
        heard += data
    assert heard == b"\x81\x05hello"
    return cpu_seconds(service) - began


def received(client: socket.socket) -> int:
    """The bytes that wait to be read, as far as they are a megabyte."""
    client.setblocking(False)
    try:
        return len(client.recv(1 << 20, socket.MSG_PEEK))
    except BlockingIOError:
        return 0


@pytest.fixture(params=["default", "beastws-uvloop"])
def service(request: pytest.FixtureRequest, tmp_path: Path, many_files: None) -> Iterator[Service]:
    if request.param != "default":
        pytest.importorskip("uvloop", reason="CROWDS ON UVLOOP ARE NOT TESTED: pip install uvloop")
    limits = ("--max-chat-rate=0", "--ping-interval=0", "--drain-time=2")
    reactor = [] if request.param == "default" else [f"--reactor={request.param}"]
    with running(tmp_path, *limits, twistd=reactor) as service:
        yield service


def test_no_other_room_and_no_end_is_delayed_by_a_flood_into_a_large_room(service: Service) -> None:
    members = [connected(service, "/chat") for _ in range(MEMBERS)]
    attacker, witness = connected(service, "/chat"), connected(service, "/chat/quiet")
    try:
        attacker.sendall(b"\x81\x80\0\0\0\0" * MESSAGES)
        waits = [answered(service, witness)]
        deadline = time.monotonic() + PATIENCE
        while received(members[-1]) < 2 * MESSAGES:
            assert time.monotonic() < deadline
            time.sleep(0.005)
            waits.append(answered(service, witness))
        print(f"{len(waits)} answers, each within {max(waits):.3f} s of CPU")
        assert max(waits) < SHARE
        while {received(member) for member in members} != {2 * MESSAGES}:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        # The end does not wait for a flood.
        attacker.sendall(b"\x81\x80\0\0\0\0" * 10922)
        answered(service, witness)
        service.terminate()
        assert service.ended() == 0
    finally:
        for client in (*members, attacker, witness):
            client.close()


def test_no_other_room_is_delayed_by_many_members_that_come_and_go(service: Service) -> None:
    watcher, witness = connected(service, "/chat", subprotocol=True), connected(service, "/chat/quiet")
    began = cpu_seconds(service)
    members = [connected(service, f"/chat?name={number:03}", subprotocol=True) for number in range(2 * MEMBERS)]
    joining = cpu_seconds(service) - began
    try:
        for member in members[:MEMBERS]:
            member.close()
        waits = [answered(service, witness)]
        told = b""
        deadline = time.monotonic() + PATIENCE
        while b'"type":"leave"' not in told or b'"count":' not in told.partition(b'"type":"leave"')[2]:
            assert time.monotonic() < deadline, told
            waits.append(answered(service, witness))
            watcher.settimeout(0.05)
            with suppress(TimeoutError):
                told += watcher.recv(1 << 16)
        print(f"{2 * MEMBERS} joins took {joining:.2f} s of CPU; an answer {max(waits):.3f} s at most")
        assert max(waits) < SHARE
        # One by one they would have been 45,000 notices: more than 10 bytes each for each member.
        assert received(members[-1]) < 50_000
    finally:
        for client in (*members, watcher, witness):
            client.close()
