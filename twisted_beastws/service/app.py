"""Import the application that ``--app package.module:name`` names."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from inspect import isclass, isgeneratorfunction
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.server.factory import BARE_GENERATOR, Handler, WebSocketServerFactory, is_handler
from twisted_beastws.server.router import Router

ASGI = "asgi:"
"""The prefix of an ``--app`` that names an ASGI application."""

_PACKAGE = str(Path(__file__).parents[1]) + os.sep


class ASGIApplication:
    """An ASGI application that ``--app`` names, to be served with the options of the service."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.root_path = ""

    def factory(self, **options: Any) -> WebSocketServerFactory:
        """Return a factory that serves the application."""
        from twisted_beastws.asgi.factory import ASGIFactory

        factory = ASGIFactory(self.application, root_path=self.root_path, **options)
        self._lifespan = factory.lifespan
        return factory

    def call_if_startup_fails(self, report: Callable[[str], None]) -> None:
        """Call ``report`` with one line if the application reports that its startup failed."""
        self._lifespan.failed = report


Served = Callable[[], WebSocketProtocol] | Handler | Router
"""A maker of protocols, such as a class, a coroutine function, or a router."""


class AppError(Exception):
    """The application cannot be served; ``str(error)`` gives the reason in one line."""


def install_asyncio_reactor() -> None:
    """Install a reactor on an asyncio loop, for ASGI: ours on uvloop if that is there, else Twisted's.

    Nothing happens if the program has a reactor already, such as the one of ``twistd --reactor``.
    """
    if "twisted.internet.reactor" in sys.modules:
        return
    if find_spec("uvloop") is not None:
        from twisted_beastws.uvreactor import install
    else:
        from twisted.internet.asyncioreactor import install
    install()


def find_app(name: str) -> Served | WebSocketServerFactory | ASGIApplication:
    """Import ``package.module:name``, and return it: a protocol class, coroutine function, router or factory.

    ``asgi:package.module:name`` is an ASGI application.

    The current directory is put on ``sys.path``, where the module is looked for first. Raises `AppError`.
    """
    asgi = name.startswith(ASGI)
    module_name, _, attribute = name.removeprefix(ASGI).partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise AppError(f"give it as {ASGI if asgi else ''}package.module:name")
    module = _import(module_name)
    try:
        found = attrgetter(attribute)(module)
    except AttributeError:
        raise AppError(f"the module {module_name} ({_file_of(module)}) has no {attribute}") from None
    return _check_asgi(found) if asgi else _check_kind(found)


def _import(module_name: str) -> ModuleType:
    # sys.path has the directory of the twistd script, not the current one.
    here = os.getcwd()
    if sys.path[:1] != [here]:
        sys.path.insert(0, here)
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise AppError(f"there is no module {error.name}, neither in {here} nor where Python looks") from None
        raise _import_failed(module_name, error) from error
    # A module that runs a program when it is imported may well end by SystemExit.
    except (Exception, SystemExit) as error:
        raise _import_failed(module_name, error) from error


def _import_failed(module_name: str, error: BaseException) -> AppError:
    what = " ".join(traceback.format_exception_only(type(error), error)[-1].split())
    if isinstance(error, SyntaxError):
        file, line = error.filename, error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        # Where this package refuses an argument, the line to change is the caller's.
        last = next((frame for frame in reversed(frames) if not frame.filename.startswith(_PACKAGE)), frames[-1])
        file, line = last.filename, last.lineno
    return AppError(f"importing {module_name} failed: {what} ({file}, line {line})")


def _check_asgi(found: object) -> ASGIApplication:
    if not callable(found):
        raise AppError(f"only an ASGI application can be served; it is of type {type(found).__name__}")
    from twisted.internet import reactor

    if "twisted.internet.asyncioreactor" not in sys.modules:
        raise AppError(
            f"ASGI applications need asyncio, and this is {type(reactor).__name__}: start twistd --reactor asyncio, "
            "or without --reactor"
        )
    return ASGIApplication(found)


def _check_kind(found: object) -> Served | WebSocketServerFactory:
    if isinstance(found, (WebSocketServerFactory, Router)) or is_handler(found):
        return found
    if isclass(found) and issubclass(found, WebSocketProtocol):
        return found
    kind = "another class" if isclass(found) else f"of type {type(found).__name__}"
    if isgeneratorfunction(found):
        kind = BARE_GENERATOR
    raise AppError(
        "only a subclass of WebSocketProtocol, a coroutine function (async def), a Router or a WebSocketServerFactory "
        f"can be served; it is {kind}"
    )


def _file_of(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "no file"
