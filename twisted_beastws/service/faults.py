"""The faults of a configuration. The first one ends the start; ``--check-config`` collects all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from twisted.python.usage import UsageError


class Faults:
    """The collected faults.

    Attributes:
        lines: one for each fault.
        options: the names of the options that have one.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.options: set[str] = set()
        self.is_noting = False


_collected: ContextVar[Faults | None] = ContextVar("faults", default=None)


@contextmanager
def collecting() -> Iterator[Faults]:
    """Collect the faults, instead of raising the first."""
    faults = Faults()
    token = _collected.set(faults)
    try:
        yield faults
    finally:
        _collected.reset(token)


def is_collecting() -> bool:
    """Return whether the faults are collected now."""
    return _collected.get() is not None


@contextmanager
def noted(*options: str) -> Iterator[None]:
    """Note a ``UsageError`` as a fault of these options if faults are collected; otherwise let it pass.

    Inside another ``noted``, let it pass: the outer one can put the name of a file before it.
    """
    faults = _collected.get()
    if faults is None or faults.is_noting:
        yield
        return
    faults.is_noting = True
    try:
        yield
    except UsageError as error:
        faults.lines.append(" ".join(str(error).split()))
        faults.options.update(options)
    finally:
        faults.is_noting = False


def is_faulty(*options: str) -> bool:
    """Return whether one of these options has a fault that was noted."""
    faults = _collected.get()
    return faults is not None and not faults.options.isdisjoint(options)
