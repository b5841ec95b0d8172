"""Tests of the choice of a backplane by the scheme of a URL."""

from __future__ import annotations

import pytest

from twisted_beastws.hub.planes import is_cluster, is_postgres, parse_url
from twisted_beastws.hub.postgres_url import PostgresURL
from twisted_beastws.hub.redis_url import RedisURL


class TestSchemes:
    """RFC 3986 §3.1: schemes, in any case."""

    @pytest.mark.parametrize("url", ["redis://h", "REDIS://h", "Rediss://h", "UNIX:///socket", "redis+CLUSTER://h"])
    def test_a_redis_is_found(self, url: str) -> None:
        assert isinstance(parse_url(url), RedisURL) and not is_postgres(url)
        assert is_cluster(url) is ("CLUSTER" in url)

    @pytest.mark.parametrize("url", ["postgresql://h/d", "PostgreSQL://h/d", "POSTGRES://h/d"])
    def test_a_postgresql_is_found(self, url: str) -> None:
        assert isinstance(parse_url(url), PostgresURL) and is_postgres(url) and not is_cluster(url)

    @pytest.mark.parametrize("url", ["", "http://h", "redi://h"])
    def test_another_scheme_is_refused_with_the_forms_of_both(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"not that of a Redis or a PostgreSQL: give redis://.*; or postgresql://"):
            parse_url(url)
