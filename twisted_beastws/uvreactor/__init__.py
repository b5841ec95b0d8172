"""A Twisted reactor whose TCP runs on uvloop's own transports.

It is Twisted's asyncio reactor on a uvloop loop in all but TCP. ``install()`` as other reactors', before
``twisted.internet.reactor`` is first imported, or ``twistd --reactor beastws-uvloop``. uvloop is an extra:
``pip install 'twisted_beastws[uvloop]'``.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from importlib.util import find_spec

__all__ = ["install"]


def install(eventloop: AbstractEventLoop | None = None) -> None:
    """Make this the reactor of the process.

    eventloop: a uvloop loop; by default the running one, or a new one.

    Raises ImportError without uvloop, TypeError for another loop and ``ReactorAlreadyInstalledError``.
    """
    if find_spec("uvloop") is None:
        raise ImportError("this reactor needs uvloop: pip install 'twisted_beastws[uvloop]'")
    from twisted_beastws.uvreactor import reactor

    reactor.install(eventloop)
