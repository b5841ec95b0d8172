"""Build the service from its options."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from twisted_beastws.hub import Hub
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.server.descriptors import DescriptorWatch
from twisted_beastws.server.factory import WebSocketServerFactory
from twisted_beastws.server.garbage import ShortCollections
from twisted_beastws.server.gates.admin_pages import Ready
from twisted_beastws.server.gates.login import PasswordLogin
from twisted_beastws.server.observers.metrics import Metrics
from twisted_beastws.server.observers.reactor_lag import ReactorLag
from twisted_beastws.server.serving import Serving, ShutdownPolicy
from twisted_beastws.service.access.identity import ACCESS_TOKEN, BearerTokens
from twisted_beastws.service.access.sessions import Sessions
from twisted_beastws.service.admin import admin_factory
from twisted_beastws.service.api.control import Control
from twisted_beastws.service.app import ASGIApplication, Served
from twisted_beastws.service.beastws_service import BeastwsService
from twisted_beastws.service.chat import Chat, HubService
from twisted_beastws.service.chat_limits import ChatLimits
from twisted_beastws.service.codec import report_codec
from twisted_beastws.service.dangers import dangers
from twisted_beastws.service.logs import buffer_standard_output, reopen_log_files
from twisted_beastws.service.monitoring.systemd import Systemd
from twisted_beastws.service.notices import Notices
from twisted_beastws.service.options import Options
from twisted_beastws.service.site import Site
from twisted_beastws.service.subprotocol import CHAT_V1, is_entry
from twisted_beastws.service.summing import AggregatedMetrics
from twisted_beastws.service.worker import Share, Supervised
from twisted_beastws.service.workers import GRACE, Workers
from twisted_beastws.wire.handshake import is_upgrade

if TYPE_CHECKING:
    from twisted.application.service import IService

    from twisted_beastws.wire.http import Request


log = Logger()

ADMIN_SHUTDOWN = 1.0
"""Seconds after the drain that the last clients of the admin listener have to close."""


def makeService(options: Options) -> BeastwsService:
    """Return the service for parsed ``options``."""
    from twisted.internet import reactor

    if options.membership is None:
        buffer_standard_output()
        report_codec()
        for danger in dangers(options):
            log.warn("{danger}", danger=danger)
    if options["workers"]:
        return _supervising(reactor, options)
    helpers: list[IService] = []
    reloads: list[Callable[[], object]] = [reopen_log_files, *(endpoint.reload for _, endpoint in options.endpoints)]
    hub: Any = None
    tokens = _tokens(reactor, options) if options.verifiers else None
    if options.app is None:
        hub = options.hub
        helpers.append(HubService(hub))
        serving = _serving_chat(options, hub, tokens)
    else:
        hub = getattr(options.app, "hub", None)
        serving = Serving(_factory(options, options.app), options.endpoints, [("ws", "/")], options.shutdown_policy)
    # The uvloop reactor has its own ``descriptors``.
    serving.descriptors = getattr(reactor, "descriptors", None) or DescriptorWatch(reactor.callLater)
    factory = serving.factory
    helpers.append(ShortCollections(partial(_size, factory, hub)))
    if tokens is not None:
        helpers.append(tokens.sessions)
        factory.add_gate(tokens)
    elif options.checkers is not None:
        factory.add_gate(options.checkers)
    if options.proxies is not None:
        factory.trust_proxies(options.proxies)
    if options.access_log is not None:
        helpers.append(options.access_log)
        reloads.append(options.access_log.reopen)
        factory.add_observer(options.access_log)
    ready = partial(_is_ready, serving, hub if options.app is None else None)
    watched = options["admin"] is not None
    if watched:
        lag = ReactorLag(reactor)
        helpers.append(lag)
        metrics = Metrics(factory, hub=hub, descriptors=serving.descriptors, reactor_lag=lag)
    if options.admin is not None:
        helpers.append(_serving_admin(options, metrics, ready))
        reloads.append(options.admin[1].reload)
    if options["api-token-file"] is not None and hub is not None:
        control = Control(reactor, hub, lambda: factory.connections)
        helpers.append(control)
        if options.api is not None:
            helpers.append(_serving_api(reactor, options, hub, control))
            reloads.append(options.api[1].reload)
    if options.membership is not None:
        answers: dict[str, Callable[[], Any]] = {"ready": ready}
        if watched:
            answers["metrics"] = partial(_page, metrics)
        helpers.append(Supervised(reactor, options.membership, answers))
    else:
        _notify_systemd(reactor, ready, helpers, reloads)
    operated = BeastwsService(reactor, serving, helpers, reloads)
    if isinstance(options.app, ASGIApplication):
        options.app.call_if_startup_fails(operated.fail)
    refused = getattr(getattr(hub, "backplane", None), "refused", None)
    if refused is not None:
        refused.addCallback(partial(_stop_for_good, operated, options))
    return operated


def _stop_for_good(operated: BeastwsService, options: Options, line: str) -> str:
    """End the service, and all its processes, with exit status 1: the backplane can never work."""
    if options.membership is not None:
        options.membership.reports.send("failed", line)
    operated.fail(line)
    return line


def _is_ready(serving: Serving, hub: Hub | None) -> bool:
    """Whether the service takes connections, and has its rooms' backplane, or had it once."""
    return serving.ready and (hub is None or hub.ready)


def _size(factory: WebSocketServerFactory, hub: object) -> int:
    """Return the number of connections, and of rooms with connections."""
    return len(factory.connections) + (hub.room_count if isinstance(hub, Hub) else 0)


def _page(metrics: Metrics) -> str | None:
    try:
        return metrics.render()[1].decode("utf-8")
    except ImportError:
        return None


def _supervising(reactor: Any, options: Options) -> BeastwsService:
    """What opens the sockets, and runs the processes that serve them."""
    log = options.access_log
    workers = Workers(
        reactor,
        options["workers"],
        options.held,
        Share(0, options.directory, [], [], options.files, options["drain-time"] + GRACE),
        lambda: _twistd_arguments(options),
        drain_time=options["drain-time"],
        timeout=options["worker-timeout"] or None,
        access_line=(lambda line: None) if log is None else log.write_line,
    )
    urls = [("ws", "/")] if options.app is not None else [("http", "/"), ("ws", options["path"])]
    serving = Serving(WebSocketServerFactory(WebSocketProtocol), options.endpoints, urls)
    helpers: list[IService] = [workers]  # type: ignore[list-item, unused-ignore]
    reloads: list[Callable[[], object]] = [reopen_log_files, partial(_reload_workers, options, workers)]
    if log is not None:
        # Fail now if the log file cannot be opened; otherwise each worker would fail.
        helpers.insert(0, log)
        reloads.append(log.reopen)
    if options.api is not None:
        # This process has no members, but it publishes as the workers do.
        hub = options.hub if options.app is None else options.app.hub  # type: ignore[union-attr]
        control = Control(reactor, hub, tuple)
        helpers[:0] = [HubService(hub), control, _serving_api(reactor, options, hub, control)]
        reloads.append(options.api[1].reload)
    summed = AggregatedMetrics(reactor, workers)
    if options.admin is not None:
        # It stops after the workers, so that it can report their end.
        helpers.insert(0, _serving_admin(options, summed, summed.ready))
        reloads.append(options.admin[1].reload)
    _notify_systemd(reactor, summed.ready, helpers, reloads)
    operated = BeastwsService(reactor, serving, helpers, reloads, lambda: workers.signal("TERM"))
    workers.failed = operated.fail
    return operated


def _notify_systemd(reactor: Any, ready: Ready, helpers: list[IService], reloads: list[Callable[[], object]]) -> None:
    systemd = Systemd.of(os.environ, reactor, ready)
    if systemd is not None:
        # The first helper stops last, so that signs of life go out until then.
        helpers.insert(0, systemd)  # type: ignore[arg-type, unused-ignore]
        reloads[:] = [systemd.reloading, *reloads, systemd.reloaded]


def _reload_workers(options: Options, workers: Workers) -> None:
    """Have workers read certificates again, and those that start later begin with them, if they are in order."""
    files = None
    in_order = [endpoint.reload() for _, endpoint in options.endpoints]
    if all(in_order):
        with suppress(OSError):
            files = options.read_files()
    workers.reload(files)


def _twistd_arguments(options: Options) -> list[str]:
    """The command line of a worker."""
    chosen = getattr(options, "parent", None) or {}
    reactor = [f"--reactor={chosen['reactor']}"] if chosen.get("reactor") not in (None, "default") else []
    logger = "--logger=twisted_beastws.service.worker.log_observer"
    # twistd has already changed to the directory of its --rundir.
    rundir = f"--rundir={os.path.abspath('.')}"
    return ["--nodaemon", "--pidfile=", logger, rundir, *reactor, "beastws", *options.arguments]


def _serving_admin(options: Options, metrics: Metrics | AggregatedMetrics, ready: Ready) -> Serving:
    assert options.admin is not None
    factory = admin_factory(metrics, ready, options["admin-host"])
    return Serving(
        factory, [options.admin], [("http", "/metrics")], ShutdownPolicy(seconds=ADMIN_SHUTDOWN), option="admin"
    )


def _serving_api(reactor: Any, options: Options, hub: Hub, control: Control) -> Serving:
    # Most services have no API, and need no twisted.web.
    from twisted_beastws.service.api.operations import Api
    from twisted_beastws.service.api.parsing import Reader
    from twisted_beastws.service.api.site import ApiFactory

    assert options.api is not None and options.tokens is not None
    is_chat, most = options.app is None, options["max-message"]
    api = Api(hub, control, Reader(is_chat, most), is_chat)
    factory = ApiFactory(reactor, api, options.tokens, most)
    return Serving(factory, [options.api], [("http", "/api/publish")], option="api")


def _tokens(reactor: Any, options: Options) -> BearerTokens:
    is_chat, passwords = options.app is None, options.checkers
    assert passwords is None or isinstance(passwords, PasswordLogin)

    def is_page(request: Request) -> bool:
        # The page contains no secret; it asks its user for the token.
        return request.path == "/" and not is_upgrade(request) and not is_entry(request.query)

    is_public = is_page if is_chat and passwords is None else lambda request: False
    return BearerTokens(options.verifiers, Sessions(reactor), passwords, is_public, is_chat)


def _serving_chat(options: Options, hub: Hub, tokens: BearerTokens | None) -> Serving:
    path = options["path"]
    limits = ChatLimits(options["max-joins-per-address"] or None, options["max-chat-rate"] or None)
    site = Site(path, options["max-message"])
    chat = _factory(options, partial(Chat, hub, path, site, Notices(hub), limits, tokens), (CHAT_V1,))
    return Serving(chat, options.endpoints, [("http", "/"), ("ws", options["path"])], options.shutdown_policy)


def _factory(
    options: Options, app: Served | WebSocketServerFactory | ASGIApplication, subprotocols: Sequence[str] = ()
) -> WebSocketServerFactory:
    if isinstance(app, WebSocketServerFactory):
        if app.settings.budget is None:
            # Its other settings are the application's; how much memory the process has is its operator's.
            app.settings = replace(app.settings, budget=options.budget)
        return app
    make = app.factory if isinstance(app, ASGIApplication) else partial(WebSocketServerFactory, app)
    return make(
        # The pair that has a token must get an answer that it offered, if it is all that a browser offers.
        subprotocols=(*subprotocols, ACCESS_TOKEN) if options.verifiers else subprotocols,
        origins=options.origins,
        timeouts=options.timeouts,
        limits=options.limits,
        deflate=options.deflate,
        budget=options.budget,
    )
