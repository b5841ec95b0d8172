"""The main program: from the command line to the exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater, react
from twisted.python.usage import UsageError

from twisted_beastws.client.connect import connect
from twisted_beastws.console.bench import TIMEOUTS, Bench, BenchError, Load
from twisted_beastws.console.failures import Status, how_it_ended, status_of, why_not
from twisted_beastws.console.front import Front
from twisted_beastws.console.options import ConsoleOptions
from twisted_beastws.console.pipes import Pipes
from twisted_beastws.console.progress import Progress
from twisted_beastws.console.session import LIMITS, MAX_MESSAGE, TerminalSession
from twisted_beastws.console.style import Style
from twisted_beastws.console.text import milliseconds

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def main(arguments: Sequence[str], program: str = "python -m twisted_beastws") -> None:
    """Run the command line. Raises ``SystemExit`` with a `Status`.

    Args:
        arguments: The arguments, without the name of the program.
        program: The program as the user called it.
    """
    _open_closed_descriptors()
    options = ConsoleOptions()
    options.synopsis = f"Usage: {program} [options] URL"
    try:
        options.parseOptions(arguments)
    except UsageError as error:
        print(f"{options.synopsis}\n{error}\nTry {program} --help.", file=sys.stderr)
        raise SystemExit(Status.USAGE) from None
    react(_run, [options])


async def _run(reactor: Any, options: ConsoleOptions) -> None:
    # The reactor installs its own signal handlers when it starts; ours must come after them.
    await deferLater(reactor, 0)
    with Interrupt(reactor) as interrupt, _descriptors_as_before():
        status = await (_bench if options["bench"] else _talk)(reactor, options, interrupt)
    raise SystemExit(status)


class Interrupt:
    """Calls ``action`` in the reactor when a signal asks the process to end."""

    def __init__(self, reactor: Any) -> None:
        self.action: Callable[[], object] = lambda: None
        self._reactor = reactor

    def __enter__(self) -> Interrupt:
        self._handlers = [(number, signal.signal(number, self._signalled)) for number in SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers:
            signal.signal(number, handler)

    def _signalled(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(lambda: self.action())


async def _talk(reactor: Any, options: ConsoleOptions, interrupt: Interrupt) -> Status:
    prompted, front = _front(reactor, options)
    url = options.url
    name = f"{url.scheme}://{url.host_field}{url.target}"
    wait = None if prompted else options["wait"]
    # A redirect needs another session.
    make_session = partial(TerminalSession, front, reactor, name, options.script, wait)
    connecting = _connect(reactor, options, make_session, limits=LIMITS)
    interrupt.action = connecting.cancel
    try:
        session: TerminalSession = await connecting
    except CancelledError:
        return Status.INTERRUPTED
    except Exception as error:
        return _not_connected(options, error)
    interrupt.action = session.interrupt
    reason = await session.over
    status = status_of(reason)
    if status is Status.CLEAN and not (prompted or session.complete):
        status = Status.BROKEN
    told = how_it_ended(reason)
    if session.latency is not None:
        told += f"; the latest round trip took {milliseconds(session.latency)}"
    (front.fault if status else front.note)(told)
    stopping = front.stop()
    interrupt.action = stopping.cancel
    try:
        await stopping
    except CancelledError:
        # The user interrupted us while nothing read our output.
        return Status.INTERRUPTED
    return status


async def _bench(reactor: Any, options: ConsoleOptions, interrupt: Interrupt) -> Status:
    load = Load(options["connections"], options["messages"], options["size"])
    bench = Bench(load, lambda protocol: _connect(reactor, options, protocol, timeouts=TIMEOUTS), reactor)
    running = Deferred.fromCoroutine(bench.run(Progress(sys.stderr)))
    interrupt.action = running.cancel
    try:
        figures = await running
    except CancelledError:
        partial_figures = bench.so_far()
        if partial_figures is not None:
            print(f"interrupted\n{partial_figures}", flush=True)
        return Status.INTERRUPTED
    except BenchError as error:
        print(error, file=sys.stderr)
        return Status.BROKEN
    except Exception as error:
        return _not_connected(options, error)
    print(figures, flush=True)
    return Status.CLEAN


def _not_connected(options: ConsoleOptions, error: Exception) -> Status:
    print(why_not(error, options.url), file=sys.stderr)
    return Status.NOT_CONNECTED


def _front(reactor: Any, options: ConsoleOptions) -> tuple[bool, Front]:
    """Return whether the front has a prompt, and the front."""
    style = Style.wanted()
    reads = options.script is None
    if find_spec("termios") is None:
        from twisted_beastws.console.threaded import ThreadedIO

        prompted = reads and os.isatty(0)
        make_stdio = partial(ThreadedIO, later=reactor.callFromThread)
        return prompted, Pipes(reads, style if os.isatty(1) else None, MAX_MESSAGE, make_stdio, prompted)
    if reads and os.isatty(0) and os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb":
        from twisted_beastws.console.terminal import Terminal

        return True, Terminal(style, reactor.callFromThread)
    return False, Pipes(reads, style if os.isatty(1) else None, MAX_MESSAGE)


def _connect(reactor: Any, options: ConsoleOptions, protocol: Callable[[], Any], **settings: Any) -> Deferred[Any]:
    insecure, authorities, identity = options["insecure"], options["cacert"], options["cert"]
    if options.url.secure and (insecure or authorities is not None or identity is not None):
        from twisted_beastws.console.tls import tls_with

        ours = options.url.host
        # Do not send the client certificate to another host after a redirect.
        settings["tls"] = lambda host: tls_with(host, insecure, authorities, identity if host == ours else None)
    return connect(
        options["url"],
        reactor=reactor,
        protocol=protocol,
        headers=options["header"],
        subprotocols=options["subprotocol"],
        **settings,
    )


@contextmanager
def _descriptors_as_before() -> Iterator[None]:
    """Restore the blocking mode of the standard streams, which Twisted changes for all processes that share them."""
    # Windows has no such flag.
    before = [os.get_blocking(descriptor) for descriptor in (0, 1, 2)] if os.name == "posix" else []
    try:
        yield
    finally:
        for descriptor, blocking in enumerate(before):
            os.set_blocking(descriptor, blocking)


def _open_closed_descriptors() -> None:
    """Open the descriptors 0, 1 and 2 if they are closed; otherwise a later file or socket would get their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
