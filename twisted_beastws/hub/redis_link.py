"""The connections to a Redis, through txredisapi, which imports the reactor: import this late."""

from __future__ import annotations

import random
from collections.abc import Callable
from secrets import token_hex
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from txredisapi import ConnectionError as RedisConnectionError  # type: ignore[import-not-found,import-untyped,unused-ignore]
from txredisapi import RedisProtocol

from twisted_beastws.hub.redis import Found, LinkUser
from twisted_beastws.hub.redis_url import RedisURL

AConnection = TypeVar("AConnection", bound="Connection")

CONNECT_TIMEOUT = 5.0
"""Seconds for TCP and TLS to connect."""

REPLY_TIMEOUT = 5.0
"""Seconds for a command's reply, after which the connection is dropped."""

STOP_TIMEOUT = 1.0
"""Seconds for the last reply at the end."""

BEAT = 10.0
"""Seconds between two signs of life, which keep our members' names, too."""

LEASE = 30
"""Seconds after the last of them, after which our members are no longer listed."""

KEPT = 86400
"""Seconds that a room's stream is kept after its last message: a day."""

# In one step, so that a room's messages are published in the order of its stream.
PUBLISH = """
local id = ''
if ARGV[3] ~= '0' then
    id = redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[3], '*', 'm', ARGV[2])
    redis.call('EXPIRE', KEYS[1], ARGV[4])
end
redis.call('PUBLISH', ARGV[1], id .. '\\n' .. ARGV[2])
return id
"""
HISTORY = """
local there = #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
local found = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
local more, size, part = #found == tonumber(ARGV[2]) and 1 or 0, 0, {}
for n, entry in ipairs(found) do
    size = size + #entry[2][2]
    if n > 1 and size > tonumber(ARGV[3]) then
        more = 1
        break
    end
    part[#part + 1] = entry[1]
    part[#part + 1] = entry[2][2]
end
return {there, more, part}
"""
LATEST = """
local latest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
return latest[1] and latest[1][1] or '0-0'
"""
WHO = """
local alive, names = {}, {}
local fields = redis.call('HGETALL', KEYS[1])
for n = 1, #fields, 2 do
    local hub = string.match(fields[n], '^[^:]*')
    if alive[hub] == nil then
        alive[hub] = redis.call('EXISTS', ARGV[1] .. hub) == 1
    end
    if alive[hub] then
        names[#names + 1] = fields[n + 1]
    else
        redis.call('HDEL', KEYS[1], fields[n])
    end
end
return names
"""


class Connection(RedisProtocol):  # type: ignore[misc,unused-ignore]
    """A connection to Redis. It is its own factory, as far as txredisapi wants one.

    ready: fires when it is authenticated and its database selected; fails when it is lost before.
    gone: fires when it is lost.
    """

    isLazy = False

    def __init__(self, url: RedisURL, clock: IReactorTime) -> None:
        # As octets, and no number made of a message that looks like one.
        super().__init__(
            charset=None,
            convertNumbers=False,
            replyTimeout=REPLY_TIMEOUT,
            username=url.username,
            password=url.password,
            dbid=url.database or None,
        )
        self.callLater = clock.callLater
        self.factory = self
        self.ready: Deferred[Connection] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._refused: str | None = None
        self.whenConnected().addCallback(self.ready.callback)

    def stopTrying(self) -> None:
        """txredisapi would not try again."""

    def connectionError(self, why: str) -> None:
        """Authentication or selection failed, and the connection is being dropped."""
        self._refused = why

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if not self.ready.called:
            self.ready.errback(RedisConnectionError(self._refused or reason.getErrorMessage()))
        self.gone.callback(None)

    def execute(self, *arguments: str | bytes | int) -> Deferred[Any]:
        """Send a command; the Deferred fails with an error's reply, or when the connection is lost."""
        return maybeDeferred(self.execute_command, *arguments)

    def drop(self) -> None:
        """End it now."""
        # One over TLS cannot be ended twice.
        if self.transport is not None and not self.gone.called:
            self.transport.abortConnection()


class Subscriber(Connection):
    """A connection on which messages come."""

    def __init__(self, url: RedisURL, clock: IReactorTime, received: Callable[[bytes, bytes], None]) -> None:
        super().__init__(url, clock)
        self._received = received

    def replyReceived(self, reply: Any) -> None:
        if isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
            self._received(reply[1], reply[2])
        else:
            super().replyReceived(reply)


class RedisLink:
    """Connects, and connects again when that is lost: at first in a quarter of a second, later every ten.

    url: where to. user: whom to tell. reactor: None is the installed one.
    """

    log = Logger()

    def __init__(self, url: RedisURL, user: LinkUser, reactor: IReactorTime | None) -> None:
        if reactor is None:
            from twisted.internet import reactor as installed

            reactor = cast(IReactorTime, installed)
        self._url = url
        self._user = user
        self._reactor = reactor
        # Channels, unlike keys, are of no database.
        self._prefix = f"beastws:{url.database}:"
        self._commands: Connection | None = None
        self._subscriber: Connection | None = None
        self._lease = self._new_lease()
        self._stopping = False
        self._beating = LoopingCall(self._beat)
        self._beating.clock = reactor

    def start(self) -> None:
        """Connect, until `stop`."""
        self._serving = Deferred.fromCoroutine(self._serve())

    def stop(self) -> Deferred[None]:
        """Fires when nothing is left; the members here are no longer listed elsewhere."""
        serving = self._serving
        self._stopping = True
        serving.addErrback(lambda failure: failure.trap(CancelledError) and None)
        if self._commands is None:
            serving.cancel()
        else:
            # Its reply comes behind all others.
            last = self._commands.execute("DEL", self._lease).addTimeout(STOP_TIMEOUT, self._reactor)
            last.addBoth(lambda _: serving.cancel())
        return serving

    # Commands.

    def subscribe(self, room: str | None) -> Deferred[object]:
        """Have what is published in ``room``."""
        return self._require(self._subscriber).execute("SUBSCRIBE", self._channel(room))

    def unsubscribe(self, room: str) -> None:
        """Have it no more."""
        self._require(self._subscriber).execute("UNSUBSCRIBE", self._channel(room)).addErrback(_ignored)

    def publish(self, room: str | None, payload: bytes, keep: int) -> Deferred[bytes]:
        """Publish, and put into the room's stream, of which the last ``keep`` stay; fires with the id."""
        stream = self._key("history", room or "")
        return self._evaluate(PUBLISH, stream, self._channel(room), payload, keep, KEPT)

    def history(self, room: str, after: str, count: int, size: int) -> Deferred[Found]:
        """At most ``count`` entries behind ``after``, of not much more than ``size`` octets."""
        return self._evaluate(HISTORY, self._key("history", room), after, count, size).addCallback(_found)

    def latest(self, room: str) -> Deferred[str]:
        """The id of the latest message."""
        return self._evaluate(LATEST, self._key("history", room)).addCallback(bytes.decode)

    def enter(self, room: str, member: str, name: str) -> None:
        """List a member."""
        key = self._key("here", room)
        commands = self._require(self._commands)
        commands.execute("HSET", key, self._field(member), name).addErrback(_ignored)
        commands.execute("EXPIRE", key, 2 * LEASE).addErrback(_ignored)

    def exit(self, room: str, member: str) -> None:
        """List it no more."""
        self._require(self._commands).execute("HDEL", self._key("here", room), self._field(member)).addErrback(_ignored)

    def who(self, room: str) -> Deferred[list[str]]:
        """The names of the members of all hubs that have given a sign of life."""
        found = self._evaluate(WHO, self._key("here", room), self._key("hub", ""))
        return found.addCallback(lambda names: [name.decode() for name in names])

    def _evaluate(self, script: str, key: str, *arguments: str | bytes | int) -> Deferred[Any]:
        # By its digest it would fail where Redis has forgotten it, and what comes behind it would overtake it.
        return self._require(self._commands).execute("EVAL", script, 1, key, *arguments)

    def _require(self, connection: Connection | None) -> Connection:
        if connection is None:
            raise RuntimeError("the connection to Redis is not there")
        return connection

    def _key(self, kind: str, name: str) -> str:
        return f"{self._prefix}{kind}:{name}"

    def _field(self, member: str) -> str:
        return f"{self._lease.rpartition(':')[2]}:{member}"

    def _channel(self, room: str | None) -> str:
        return self._key("all", "") if room is None else self._key("room", room)

    def _published(self, channel: bytes, payload: bytes) -> None:
        message_id, _, payload = payload.partition(b"\n")
        name = channel.decode()[len(self._prefix) :]
        room = name.removeprefix("room:") if name.startswith("room:") else None
        self._user.received(room, message_id.decode("ascii", "replace") or None, payload)

    # Connecting.

    async def _serve(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                await self._connect()
                failures = 0
                await self._one_is_gone()
                why = "the connection was lost"
            except CancelledError:
                return
            except Exception as error:
                why = _reason(error)
            finally:
                await self._disconnect()
            if self._stopping:
                # What is cancelled need not say so.
                return
            failures += 1
            if failures == 1:
                self.log.warn("the backplane {url} is away, which is tried again: {why}", url=self._url, why=why)
            await deferLater(self._reactor, backoff(failures))

    async def _connect(self) -> None:
        self._commands = await self._connected(Connection(self._url, self._reactor))
        self._subscriber = await self._connected(Subscriber(self._url, self._reactor, self._published))
        # Another lease, by which those who left meanwhile are listed no more.
        self._commands.execute("DEL", self._lease).addErrback(_ignored)
        self._lease = self._new_lease()
        self._commands.execute("SET", self._lease, "", "EX", LEASE).addErrback(_ignored)
        await self._user.prepare()
        self._user.up()
        self._beating.start(BEAT, now=False).addErrback(_ignored)

    async def _connected(self, connection: AConnection) -> AConnection:
        connecting = _endpoint(self._url, self._reactor).connect(Single(connection))
        # The endpoint's own timeout does not bound a TLS handshake.
        await connecting.addTimeout(CONNECT_TIMEOUT, self._reactor)
        try:
            await connection.ready
        except BaseException:
            connection.drop()
            raise
        return connection

    async def _disconnect(self) -> None:
        if self._beating.running:
            self._beating.stop()
        connections = [each for each in (self._commands, self._subscriber) if each is not None]
        self._commands = self._subscriber = None
        self._user.lost()
        for each in connections:
            each.drop()
        await gatherResults([each.gone for each in connections])

    def _one_is_gone(self) -> Deferred[None]:
        over: Deferred[None] = Deferred()

        def gone(_: None) -> None:
            if not over.called:
                over.callback(None)

        self._require(self._commands).gone.addCallback(gone)
        self._require(self._subscriber).gone.addCallback(gone)
        return over

    def _new_lease(self) -> str:
        return self._key("hub", token_hex(8))

    def _beat(self) -> None:
        commands = self._require(self._commands)
        commands.execute("SET", self._lease, "", "EX", LEASE, "GET").addCallbacks(self._renewed, _ignored)
        for room in self._user.occupied():
            commands.execute("EXPIRE", self._key("here", room), 2 * LEASE).addErrback(_ignored)
        self._require(self._subscriber).execute("PING").addErrback(_ignored)

    def _renewed(self, previous: bytes | None) -> None:
        # Whoever was stopped for so long has no members left in the others' eyes.
        if previous is None and self._commands is not None:
            self._user.list_members()


class Single(Factory):
    """A factory of one protocol, made before."""

    noisy = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: object) -> Connection:
        return self._connection


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(10.0, 0.25 * 1.7 ** min(failures - 1, 10)) * random.uniform(0.8, 1.2)


def _endpoint(url: RedisURL, reactor: IReactorTime) -> IStreamClientEndpoint:
    if url.path:
        return cast(IStreamClientEndpoint, UNIXClientEndpoint(reactor, url.path, timeout=CONNECT_TIMEOUT))
    endpoint = cast(IStreamClientEndpoint, HostnameEndpoint(reactor, url.host, url.port, timeout=CONNECT_TIMEOUT))
    if not url.tls:
        return endpoint
    from twisted_beastws.tls.endpoint import tls_endpoint

    return tls_endpoint(endpoint, url.host)


def _found(answer: list[Any]) -> Found:
    complete, more, part = answer
    ids = [message_id.decode() for message_id in part[::2]]
    return Found(bool(complete), bool(more), list(zip(ids, part[1::2], strict=True)))


def _reason(error: BaseException) -> str:
    if isinstance(error, FirstError):
        error = cast(BaseException, error.subFailure.value)
    return " ".join(str(error).split()) or type(error).__name__


def _ignored(failure: Failure) -> None:
    """The connection's loss is told by itself, and what a name's listing lacks comes with the next."""
