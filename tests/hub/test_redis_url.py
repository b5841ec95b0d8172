"""Where a Redis is."""

from __future__ import annotations

import pytest

from twisted_beastws.hub.redis_url import RedisURL


@pytest.mark.parametrize(
    ("url", "expected", "shown"),
    [
        ("redis://localhost", RedisURL("localhost"), "redis://localhost:6379/0"),
        ("redis://localhost/", RedisURL("localhost"), "redis://localhost:6379/0"),
        ("redis://10.0.0.1:7000/3", RedisURL("10.0.0.1", 7000, database=3), "redis://10.0.0.1:7000/3"),
        ("redis://[::1]:7000", RedisURL("::1", 7000), "redis://[::1]:7000/0"),
        ("redis://:pass%40word@h", RedisURL("h", password="pass@word"), "redis://h:6379/0"),
        ("redis://me:secret@h/1", RedisURL("h", database=1, username="me", password="secret"), "redis://h:6379/1"),
        ("rediss://h", RedisURL("h", tls=True), "rediss://h:6379/0"),
        (
            "rediss://h?ca=/etc/ca.pem&cert=/etc/c.pem",
            RedisURL("h", tls=True, authorities="/etc/ca.pem", certificate="/etc/c.pem"),
            "rediss://h:6379/0",
        ),
        ("redis://h?min_replicas=2", RedisURL("h", min_replicas=2), "redis://h:6379/0"),
        (
            "redis+sentinel://:secret@a,b:7,[::1]/rooms/3?sentinel_password=secret",
            RedisURL(
                password="secret",
                database=3,
                sentinels=(("a", 26379), ("b", 7), ("::1", 26379)),
                service="rooms",
                sentinel_password="secret",
            ),
            "redis+sentinel://a:26379,b:7,[::1]:26379/rooms/3",
        ),
        (
            "rediss+sentinel://a/rooms",
            RedisURL(tls=True, sentinels=(("a", 26379),), service="rooms"),
            "rediss+sentinel://a:26379/rooms/0",
        ),
        (
            "redis+cluster://me:secret@A,b:7,[::1]?min_replicas=1",
            RedisURL(
                username="me",
                password="secret",
                min_replicas=1,
                cluster=True,
                nodes=(("a", 6379), ("b", 7), ("::1", 6379)),
            ),
            "redis+cluster://a:6379,b:7,[::1]:6379",
        ),
        (
            "rediss+cluster://a/?ca=/etc/ca.pem",
            RedisURL(tls=True, authorities="/etc/ca.pem", cluster=True, nodes=(("a", 6379),)),
            "rediss+cluster://a:6379",
        ),
        ("unix:///run/redis.sock", RedisURL(path="/run/redis.sock"), "unix:///run/redis.sock?db=0"),
        ("unix:///run/a%20b?db=2", RedisURL(path="/run/a b", database=2), "unix:///run/a b?db=2"),
        ("unix://me:s@/run/r", RedisURL(path="/run/r", username="me", password="s"), "unix:///run/r?db=0"),
    ],
)
def test_a_url_is_parsed_and_shown_without_the_password(url: str, expected: RedisURL, shown: str) -> None:
    parsed = RedisURL.parse(url)
    assert parsed == expected
    assert str(parsed) == shown
    assert "secret" not in repr(parsed)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://localhost",
        "redis://",
        "redis:///1",
        "redis://h:port",
        "redis://h:70000",
        "redis://h/one",
        "redis://h/-1",
        "redis://h/1/2",
        "redis://h?db=1",
        "redis://h/1#x",
        "redis://me@h",
        "redis://[::1",
        "unix://",
        "unix:///",
        "unix://host/path",
        "unix:///path?db=x",
        "unix:///path?database=1",
        "redis://h,i",
        "redis://h:0",
        "redis://h?ca=/etc/ca.pem",
        "rediss://h?ca=",
        "redis://h?min_replicas=10",
        "redis://h?min_replicas=x",
        "redis://h?sentinel_password=x",
        "redis+sentinel://h",
        "redis+sentinel://h/",
        "redis+sentinel:///rooms",
        "redis+sentinel://h,/rooms",
        "redis+sentinel://h/rooms/x",
        "redis+sentinel://" + ",".join("h" * 17) + "/rooms",
        "redis+cluster://",
        "redis+cluster://h,",
        "redis+cluster://h/0",
        "redis+cluster://h/1",
        "redis+cluster://h?sentinel_password=x",
        "redis+cluster://" + ",".join("h" * 17),
    ],
)
def test_another_text_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        RedisURL.parse(url.replace("//", "//:secret@", 1) if url.startswith("redis://h") else url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "the URL" in str(caught.value)
