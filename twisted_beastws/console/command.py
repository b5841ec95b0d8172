"""``beastws``: the installed command. Its first argument selects the client, the server or the load test."""

from __future__ import annotations

import sys

from twisted_beastws.console.main import main


def run() -> None:
    """Run the command line. Raises ``SystemExit``."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["serve"]:
        from twisted_beastws.console.serve import serve

        serve(arguments[1:])
    elif arguments[:1] == ["bench"]:
        main(["--bench", *arguments[1:]], "beastws bench")
    else:
        main(arguments, "beastws")
