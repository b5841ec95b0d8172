"""Finding what ``--app package.module:name`` names."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from inspect import isclass, isgeneratorfunction
from operator import attrgetter
from types import ModuleType

from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.server.factory import BARE_GENERATOR, Handler, WebSocketServerFactory, is_handler
from twisted_beastws.server.router import Router

Served = Callable[[], WebSocketProtocol] | Handler | Router
"""A maker of protocols, such as a class, a coroutine function, or a router."""


class AppError(Exception):
    """What was named cannot be served; ``str(error)`` says why in one line."""


def find_app(name: str) -> Served | WebSocketServerFactory:
    """Return what ``package.module:name`` is: a protocol class, coroutine function, router or factory.

    The current directory is put on ``sys.path``, where the module is looked for first. Raises `AppError`.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise AppError("give it as package.module:name")
    module = _import(module_name)
    try:
        found = attrgetter(attribute)(module)
    except AttributeError:
        raise AppError(f"the module {module_name} ({_file_of(module)}) has no {attribute}") from None
    return _check_kind(found)


def _import(module_name: str) -> ModuleType:
    # What starts twistd has its own directory there, not the one it is started in.
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
        last = traceback.extract_tb(error.__traceback__)[-1]
        file, line = last.filename, last.lineno
    return AppError(f"importing {module_name} failed: {what} ({file}, line {line})")


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
