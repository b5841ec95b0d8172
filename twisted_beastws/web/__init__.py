"""twisted.web: an upgrade request that a Site has read becomes a WebSocket connection."""
