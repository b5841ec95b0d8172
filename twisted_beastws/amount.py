"""Reading an amount that somebody wrote, on a command line or in an endpoint string."""

from __future__ import annotations

import math


def read_amount(text: str, otherwise: str) -> float:
    """A finite number of 0 or more. Raises ``ValueError`` with ``otherwise``, which says what to give, for all else."""
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 <= amount < math.inf:
        raise ValueError(otherwise)
    return amount
