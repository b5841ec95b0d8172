"""The memory that a process keeps from one long message to the next."""

from __future__ import annotations

from functools import cache

LONGEST = 1 << 22
"""Bytes of the longest block that stays in the process when it is freed: 4 MiB. glibc would learn at most 32 MiB."""


@cache
def keep_freed_memory() -> None:
    """Make glibc keep the memory of freed messages for the next ones.

    glibc gives a freed block of 128 KiB or more back to the system, and the process then pays a page fault for each
    4 KiB of the next one. It learns from the blocks that it sees freed: from then on it keeps those of this length,
    and up to twice as much in all (``M_MMAP_THRESHOLD`` in mallopt(3)). This block is never touched, so it takes no
    memory. With other allocators this does nothing.
    """
    bytes(LONGEST)
