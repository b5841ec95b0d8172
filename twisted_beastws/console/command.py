"""``beastws``: the installed command. It connects, serves or measures, as its first argument says."""

from __future__ import annotations

import sys

from twisted_beastws.console.main import main


def run() -> None:
    """Run the command line; raises ``SystemExit``."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["serve"]:
        from twisted_beastws.console.serve import serve

        serve(arguments[1:])
    elif arguments[:1] == ["bench"]:
        main(["--bench", *arguments[1:]], "beastws bench")
    else:
        main(arguments, "beastws")
