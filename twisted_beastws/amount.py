"""Parse an amount from a command line or an endpoint string."""

from __future__ import annotations

import math


def read_amount(text: str, otherwise: str) -> float:
    """Return a finite number of 0 or more. For other text raise ``ValueError`` with ``otherwise`` as its advice."""
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 <= amount < math.inf:
        raise ValueError(otherwise)
    return amount
