"""The backplane for a URL: the scheme names the server.

A service without a backplane starts sooner because the functions import the classes when they need them.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from twisted_beastws.hub.arguments import check_cluster
from twisted_beastws.hub.postgres_url import FORMS as POSTGRES_FORMS
from twisted_beastws.hub.postgres_url import SCHEMES, PostgresURL
from twisted_beastws.hub.redis_url import CLUSTER_SCHEMES, RedisURL
from twisted_beastws.hub.redis_url import FORMS as REDIS_FORMS
from twisted_beastws.hub.redis_url import SCHEMES as REDIS_SCHEMES

if TYPE_CHECKING:
    from twisted_beastws.hub.postgres import PostgresBackplane
    from twisted_beastws.hub.redis import RedisBackplane
    from twisted_beastws.hub.redis_cluster import RedisClusterBackplane


def backplane_at(url: str, **options: Any) -> RedisBackplane | RedisClusterBackplane | PostgresBackplane:
    """Return a backplane on the server at ``url``.

    Args:
        url: the URL of a Redis, a Redis Cluster or a PostgreSQL.
        options: the arguments of `RedisBackplane`, `RedisClusterBackplane` or `PostgresBackplane`.

    Raises:
        ValueError: an argument cannot be used. Its text has no password in it.
    """
    if is_postgres(url):
        from twisted_beastws.hub.postgres import PostgresBackplane

        return PostgresBackplane(url, **options)
    if is_cluster(url):
        from twisted_beastws.hub.redis_cluster import RedisClusterBackplane

        return RedisClusterBackplane(url, **options)
    from twisted_beastws.hub.redis import RedisBackplane

    return RedisBackplane(url, **options)


def is_postgres(url: str) -> bool:
    """Return whether a URL is that of a PostgreSQL."""
    return _scheme_of(url) in SCHEMES


def is_cluster(url: str) -> bool:
    """Return whether a URL is that of a Redis Cluster."""
    return _scheme_of(url) in CLUSTER_SCHEMES


def parse_url(url: str) -> PostgresURL | RedisURL:
    """Read the URL of a server.

    Raises:
        ValueError: it is no such URL. The text is one line without a password.
    """
    if is_postgres(url):
        return PostgresURL.parse(url)
    if _scheme_of(url) not in (*REDIS_SCHEMES, "unix"):
        raise ValueError(f"the URL is not that of a Redis or a PostgreSQL: give {REDIS_FORMS}; or {POSTGRES_FORMS}")
    return RedisURL.parse(url)


def missing_extra(url: str) -> str | None:
    """Return the name of the extra that a backplane on the server at ``url`` needs; None if it is installed."""
    extra, module = ("postgres", "psycopg") if is_postgres(url) else ("redis", "txredisapi")
    return extra if find_spec(module) is None else None


def check_prefix(url: str, prefix: str) -> None:
    """Raise ``ValueError`` for a prefix that the server at ``url`` cannot use."""
    if is_postgres(url):
        from twisted_beastws.hub.postgres import check_schema

        check_schema(prefix)
    elif is_cluster(url):
        check_cluster(prefix)


def _scheme_of(url: str) -> str:
    # RFC 3986 §3.1: a scheme may have capital letters.
    return url.partition(":")[0].strip().lower()
