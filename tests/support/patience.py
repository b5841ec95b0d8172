"""How long a test waits for an event."""

from __future__ import annotations

PATIENCE = 60.0
"""Seconds after which an awaited event counts as missing: generous, because a busy machine is slow."""
