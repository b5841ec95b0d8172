"""A Twisted reactor whose TCP runs on uvloop's own transports.

Everything except TCP is Twisted's asyncio reactor on a uvloop loop. Call ``install()`` before
``twisted.internet.reactor`` is first imported, as with other reactors, or run ``twistd --reactor beastws-uvloop``.
uvloop is an extra: ``pip install 'twisted_beastws[uvloop]'``.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from importlib.util import find_spec

__all__ = ["install"]


def install(eventloop: AbstractEventLoop | None = None) -> None:
    """Make this the reactor of the process.

    Args:
        eventloop: A uvloop loop; by default the running one, or a new one.

    Raises:
        ImportError: uvloop is not installed.
        TypeError: ``eventloop`` is not a uvloop loop.
        ReactorAlreadyInstalledError: The process has a reactor already.
    """
    if find_spec("uvloop") is None:
        raise ImportError("this reactor needs uvloop: pip install 'twisted_beastws[uvloop]'")
    from twisted_beastws.uvreactor import reactor

    reactor.install(eventloop)
