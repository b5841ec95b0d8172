"""``python -m twisted_beastws URL``: an interactive client, a client for scripts, and a load test."""
