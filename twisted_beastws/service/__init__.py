"""``twistd beastws``: a WebSocket chat with its page, or the user's own application."""

from twisted_beastws.service.maker import makeService
from twisted_beastws.service.options import Options

__all__ = ["Options", "makeService"]
