"""The HTTP API, by which other programs publish to the rooms and look into them: docs/api.md."""
