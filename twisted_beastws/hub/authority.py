"""The authority of a backplane's URL, which may list several hosts."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit


def split_authority(url: str) -> tuple[SplitResult, str]:
    """Return the URL without its authority, and the authority.

    Newer Pythons' ``urlsplit`` alone would refuse a list of hosts in which an IPv6 address is not the first.
    """
    scheme, slashes, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    return urlsplit(f"{scheme}{slashes}{rest[len(authority) :]}"), authority
