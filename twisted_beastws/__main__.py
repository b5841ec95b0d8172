"""``python -m twisted_beastws URL``."""

import sys

from twisted_beastws.console.main import main

if __name__ == "__main__":
    main(sys.argv[1:])
