"""The client: `connect`, the endpoint, proxies and reconnecting."""
