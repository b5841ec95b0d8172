"""The server: the factory, admission limits and graceful shutdown."""
