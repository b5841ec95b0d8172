"""Endpoint strings, and any stream protocol over WebSocket."""
