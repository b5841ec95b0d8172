"""Where a Redis is, as a URL says it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

FORMS = (
    "redis://[[user]:password@]host[:port][/database], rediss://... for TLS, or unix:///path/to/socket[?db=database]"
)


@dataclass(frozen=True)
class RedisURL:
    """A Redis' address, and who we are there.

    host, port: where it is, or path: its UNIX socket. tls: the host is spoken to over TLS, its certificate verified.
    database: the number of the one that is used.
    """

    host: str = ""
    port: int = 6379
    path: str = ""
    tls: bool = False
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> RedisURL:
        """Read a URL. Raises ``ValueError``, whose text is one line without the password."""
        try:
            parts = urlsplit(url)
            port = parts.port or 6379
        except ValueError:
            raise ValueError(f"the URL is none: give {FORMS}") from None
        username = unquote(parts.username or "") or None
        password = unquote(parts.password or "") or None
        if username is not None and password is None:
            raise ValueError("the URL has a user without a password: give redis://user:password@host")
        if parts.fragment or (parts.query and parts.scheme != "unix"):
            raise ValueError(f"the URL has a part that means nothing here: give {FORMS}")
        if parts.scheme in ("redis", "rediss") and parts.hostname:
            database = _database(parts.path.removeprefix("/"))
            tls = parts.scheme == "rediss"
            return cls(parts.hostname, port, tls=tls, database=database, username=username, password=password)
        if parts.scheme == "unix" and parts.path not in ("", "/") and not parts.hostname:
            queried = parse_qs(parts.query, keep_blank_values=True)
            database = _database(queried.pop("db", [""])[-1])
            if not queried:
                return cls(path=unquote(parts.path), database=database, username=username, password=password)
        raise ValueError(f"the URL is none of a Redis: give {FORMS}")

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}?db={self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}/{self.database}"


def _database(text: str) -> int:
    if not re.fullmatch("[0-9]{0,9}", text):
        raise ValueError("the URL's database is no number: give redis://host/0")
    return int(text or 0)
