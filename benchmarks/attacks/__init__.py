"""Attacks on a server, bounded and on the loopback interface only, and their cost for its other clients."""
