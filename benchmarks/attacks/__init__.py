"""Attacks on a server, bounded and on the loopback interface only, and what they cost its other clients."""
