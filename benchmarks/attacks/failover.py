"""Kill the primary of three Redis servers again and again, while the members of a chat send messages.

``python -m benchmarks.attacks.failover --failovers 5`` starts three servers, three Sentinels and ``twistd beastws``
with two workers, and connects 200 clients, of which ten send messages. It kills the primary, waits until the Sentinels
have promoted another server and the killed one is back as a replica, and so on. At the end each client must have got
every acknowledged message once and in order, or a notice that messages may be missing. It prints JSON, and exits with
status 1 otherwise. With ``--cluster``, six nodes of a Redis Cluster take the place of the servers and Sentinels.
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react

from benchmarks.attacks.redis_servers import Clustered, Replicated, Server, clustered, replicated, until
from benchmarks.attacks.service import service_running
from twisted_beastws import WebSocketProtocol, connect
from twisted_beastws.hub.backplane import order_of

ROOMS = 4
SENDERS = 10
PAUSE = 0.1
"""Seconds between two messages of a sender."""
RETRY = 0.1
"""Seconds until a sender tries again."""
LAST = "last"
GAP = "gap"


class Client(WebSocketProtocol):
    """A member of a room.

    Attributes:
        heard: the ids of its messages, and `GAP` at each notice of a gap.
        texts: how often each text came.
    """

    number = 0

    def opened(self) -> None:
        self.heard: list[str] = []
        self.texts: Counter[str] = Counter()
        self.answers: dict[str, Deferred[dict[str, Any]]] = {}

    def text_received(self, text: str) -> None:
        event = json.loads(text)
        if event["type"] == "message":
            self.heard.append(event.get("id", ""))
            self.texts[event["text"]] += 1
        elif event["type"] == "history" and not event["complete"]:
            self.heard.append(GAP)
        elif event.get("ref") in self.answers:
            self.answers.pop(event["ref"]).callback(event)

    def publish(self, text: str, ref: str) -> Deferred[dict[str, Any]]:
        """Send a message, and return the answer."""
        self.answers[ref] = Deferred()
        self.send(json.dumps({"type": "message", "text": text, "ref": ref}))
        return self.answers[ref]


class Chat:
    """The clients, and the answers to their messages.

    Attributes:
        acknowledged: the ids of each room's accepted messages.
        outcomes: the answers, by kind.
    """

    def __init__(self, reactor: Any, clients: list[Client]) -> None:
        self.reactor = reactor
        self.clients = clients
        self.acknowledged: list[list[str]] = [[] for _ in range(ROOMS)]
        self.outcomes: Counter[str] = Counter()
        self.stopped = False

    async def send(self, client: Client) -> None:
        """Send messages until the chat stops, each again until it is accepted."""
        count = 0
        while not self.stopped:
            count += 1
            await self.say(client, f"{client.number} {count}")
            await deferLater(self.reactor, PAUSE)

    async def say(self, client: Client, text: str) -> None:
        """Send one message until it is accepted."""
        ref = secrets.token_hex(16)
        while True:
            answer = await client.publish(text, ref)
            self.outcomes[answer.get("taken", answer["type"])] += 1
            if answer["type"] == "sent":
                self.acknowledged[client.number % ROOMS].append(answer["id"])
                return
            await deferLater(self.reactor, RETRY)

    def is_over(self) -> bool:
        """Return whether every client has the last message of its room."""
        return all(client.texts[LAST] for client in self.clients)

    def faults(self) -> Counter[str]:
        """Count the broken promises, and the gaps."""
        found: Counter[str] = Counter()
        for client in self.clients:
            ids = [order_of(each) for each in client.heard if each not in (GAP, "")]
            found["out of order"] += ids != sorted(ids)
            found["twice"] += len(ids) - len(set(ids))
            if GAP not in client.heard:
                found["twice"] += sum(count > 1 for count in client.texts.values())
            found["gaps"] += client.heard.count(GAP)
            missing = set(self.acknowledged[client.number % ROOMS]) - set(client.heard)
            found["lost without a notice"] += sum(not informed(client.heard, each) for each in missing)
            found["lost"] += len(missing)
        return found


def informed(heard: list[str], missing: str) -> bool:
    """Return whether a gap was reported between the messages before and after a missing one."""
    reported = False
    for each in heard:
        if each == GAP:
            reported = True
        elif order_of(each) < order_of(missing):
            reported = False
        else:
            return reported
    return reported


async def fail_over(reactor: Any, servers: Replicated | Clustered, before: Server) -> Server:
    """Kill the primary, and bring it back as a replica of the next one; return that."""
    before.kill()
    await until(reactor, "another primary", lambda: servers.primary() not in (None, before))
    await deferLater(reactor, 0.5)
    before.start()
    await until(reactor, "all replicas", servers.is_whole)
    after = servers.primary()
    assert after is not None
    return after


async def run(reactor: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Attack a service, and return the figures by their names."""
    arguments = (f"--workers={options.workers}", "--max-chat-rate=0", "--history=10000")
    running: AbstractContextManager[Replicated | Clustered]
    running = clustered(options.down_after) if options.cluster else replicated(options.down_after)
    with running as servers:
        await until(reactor, "all replicas", servers.is_whole)
        with service_running(False, *arguments, f"--backplane={servers.url}") as (port, _):
            clients: list[Client] = []
            for number in range(options.clients):
                url = f"ws://127.0.0.1:{port}/chat/room{number % ROOMS}"
                client = await connect(url, subprotocols=["chat.v1+json"], protocol=Client)
                client.number = number
                clients.append(client)
            chat = Chat(reactor, clients)
            sending = [Deferred.fromCoroutine(chat.send(client)) for client in clients[:SENDERS]]
            primary = servers.primary()
            assert primary is not None
            ports = [primary.port]
            for _ in range(options.failovers):
                await deferLater(reactor, 1.0)
                primary = await fail_over(reactor, servers, primary)
                ports.append(primary.port)
            chat.stopped = True
            await gatherResults(sending).addTimeout(options.patience, reactor)
            await gatherResults([Deferred.fromCoroutine(chat.say(client, LAST)) for client in clients[:ROOMS]])
            await until(reactor, "the last messages", chat.is_over, options.patience)
            return {
                "failovers": len(ports) - 1,
                "primaries": [[each.port for each in servers.servers].index(port) for port in ports],
                "clients": len(clients),
                "acknowledged": sum(map(len, chat.acknowledged)),
                "answers": dict(chat.outcomes),
                **chat.faults(),
            }


def main() -> None:
    """Run the attack that the command line asks for."""
    parser = argparse.ArgumentParser(description="Kill one Redis primary after the other under a chat.")
    parser.add_argument("--failovers", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--cluster", action="store_true", help="a Redis Cluster of six nodes, and no Sentinels")
    parser.add_argument("--workers", type=int, default=2, help="of the service; default: %(default)s")
    parser.add_argument("--down-after", type=int, default=300, help="milliseconds; default: %(default)s")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds for the rest; default: %(default)g")
    parser.add_argument("--lifetime", type=int, default=300, help="end after so many seconds; default: %(default)s")
    options = parser.parse_args()
    signal.alarm(options.lifetime)

    async def attack(reactor: Any) -> None:
        figures = await run(reactor, options)
        print(json.dumps(figures))
        if any(figures[fault] for fault in ("out of order", "twice", "lost without a notice")):
            raise SystemExit(1)

    react(lambda reactor: Deferred.fromCoroutine(attack(reactor)))


if __name__ == "__main__":
    main()
