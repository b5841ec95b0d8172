"""``beastws serve``: ``twistd -n beastws`` without a search for Twisted's plugins.

A program built by PyInstaller has no directories in which Twisted could find plugins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from twisted.application.service import ServiceMaker
from twisted.python.usage import UsageError
from twisted.scripts import twistd

from twisted_beastws.console.failures import Status

COMMAND = "serve"


class ServeOptions(twistd.ServerOptions):  # type: ignore[misc, name-defined, unused-ignore]
    """The options of twistd, with our service as the only command."""

    synopsis = "Usage: beastws"

    @property
    def subCommands(self) -> Iterator[tuple[str, None, Any, str]]:
        maker = ServiceMaker("beastws", "twisted_beastws.service", "A WebSocket service.", COMMAND)
        # twistd looks up the service maker here.
        self.loadedPlugins = {COMMAND: maker}
        yield COMMAND, None, maker.options, maker.description


def serve(arguments: Sequence[str]) -> None:
    """Run the service with these options until a signal ends it. Raises ``SystemExit`` for a bad command line."""
    # Twisted imports the service by its name. PyInstaller bundles only modules that a statement imports.
    import twisted_beastws.service  # noqa: F401

    config = ServeOptions()
    try:
        config.parseOptions(["--nodaemon", "--pidfile=", COMMAND, *arguments])
    except UsageError as error:
        print(f"Usage: beastws serve [options]\n{error}\nTry beastws serve --help.", file=sys.stderr)
        raise SystemExit(Status.USAGE) from None
    twistd.runApp(config)
