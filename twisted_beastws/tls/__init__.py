"""TLS for clients: the identity of every peer is verified before the application's first byte leaves."""
