"""Fixtures of the hub's tests: a simulated Redis, and a log that may have lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from twisted_beastws.hub import Hub
from twisted_beastws.hub.planes import backplane_at

from ..support.log import logged_lines
from ..support.redis_server import RedisServer, redis_running
from .planes import PLANES, Plane, plane_running
from .simulated import SimulatedRedis

if TYPE_CHECKING:
    from .real import RealNode


@pytest.fixture
def server() -> SimulatedRedis:
    return SimulatedRedis()


@pytest.fixture
def quiet(logged: Callable[..., Any]) -> Any:
    """Lines in the log are no failure of the test."""
    yield
    logged(type(None))


@pytest.fixture
def lines(logging: None) -> Iterator[list[str]]:
    """The logged lines."""
    with logged_lines() as lines:
        yield lines
    assert not any("Traceback" in line or "Unhandled" in line for line in lines)


@pytest.fixture(scope="session")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Plane]]:
    """``planes(kind)``: the server of that kind, which starts at the first call."""
    with ExitStack() as running:
        yield cache(lambda kind: running.enter_context(plane_running(kind, tmp_path_factory.mktemp("plane"))))


@pytest.fixture(scope="module", params=PLANES)
def shared_plane(request: pytest.FixtureRequest, planes: Callable[[str], Plane]) -> Plane:
    return planes(request.param)


@pytest.fixture
def plane(shared_plane: Plane) -> Plane:
    """A server without data."""
    if shared_plane.server.process.poll() is not None:
        shared_plane.server.start()
    shared_plane.flush()
    return shared_plane


@pytest.fixture
def real_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Hub]]:
    """``hub(url)``: a hub that tries that Redis."""
    pytest.importorskip("txredisapi", reason="REDIS IS NOT TESTED: pip install txredisapi hiredis")
    from twisted_beastws.hub import linked_reconnecting

    monkeypatch.setattr(linked_reconnecting, "backoff", lambda failures: 0.05)
    monkeypatch.setattr(linked_reconnecting, "BEAT", 0.2)
    monkeypatch.setattr(linked_reconnecting, "CONNECT_TIMEOUT", 1.0)
    hubs: list[Hub] = []

    def hub(url: str, **options: Any) -> Hub:
        hubs.append(Hub(backplane_at(url, **options)))
        hubs[-1].start()
        return hubs[-1]

    yield hub
    pytest_twisted.blockon(gatherResults([each.stop() for each in hubs]))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(shared: RedisServer) -> RedisServer:
    shared.ask("FLUSHALL")
    return shared


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One to be killed."""
    with redis_running(tmp_path) as server:
        yield server


@pytest.fixture
def node() -> Iterator[Callable[..., RealNode]]:
    """``node(url)``: a hub on that Redis."""
    # It imports the reactor, which --uvloop has to choose first.
    from .real import RealNode

    nodes: list[RealNode] = []

    def node(url: str, **options: Any) -> RealNode:
        nodes.append(RealNode(url, **options))
        return nodes[-1]

    yield node
    pytest_twisted.blockon(gatherResults([each.hub.stop() for each in nodes]))
