"""Tests of `twisted_beastws.streams.endpoint_keys`: the keys of an endpoint string, and the errors for invalid ones."""

from __future__ import annotations

import pytest

from twisted_beastws import Origins, Timeouts
from twisted_beastws.options import Settings
from twisted_beastws.streams.endpoint_keys import Keys

EVERY = ("target", "subprotocols", "origins", "authority", "ping", "idle")

GOOD = {
    "target=/": Keys(target="/"),
    "target=/a/b%20c?d=e&f": Keys(target="/a/b%20c?d=e&f"),
    "subprotocols=binary": Keys(subprotocols=("binary",)),
    "subprotocols=a,b.c": Keys(subprotocols=("a", "b.c")),
    "subprotocols=": Keys(subprotocols=()),
    "subprotocols=*": Keys(subprotocols=("*",)),
    "origins=https://a.example,http://b:8080": Keys(origins=("https://a.example", "http://b:8080")),
    "authority=example.com": Keys(authority="example.com"),
    "authority=[::1]:8080": Keys(authority="[::1]:8080"),
    "ping=0.5": Keys(timeouts={"ping_interval": 0.5}),
    "ping=0": Keys(timeouts={"ping_interval": None}),
    "idle=60": Keys(timeouts={"idle": 60.0}),
    "idle=0": Keys(timeouts={"idle": None}),
}

BAD = [
    *("target=", "target=a", "target=/a b", "target=/a#b", "target=/\u00e9", "target=http://a/"),
    *("subprotocols=a b", "subprotocols=a,,b", "subprotocols=a,", "subprotocols=\u00e9"),
    *("origins=", "origins=https", "origins=https://a/path", "origins=https://a,", "origins=*"),
    *("authority=", "authority=a/b", "authority=a b", "authority=user@host", "authority=a?b", "authority=a:x"),
    *("ping=", "ping=-1", "ping=x", "ping=nan", "ping=inf", "idle=-0.1", "idle=1e999"),
]


def take(text: str, *names: str) -> Keys:
    key, _, value = text.partition("=")
    return Keys.take("beastws", names or EVERY, {key: value})


@pytest.mark.parametrize("text", GOOD)
def test_a_valid_key_is_read(text: str) -> None:
    assert take(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_the_error_names_a_bad_key(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        take(text)
    assert str(caught.value).startswith(f"beastws: {text}: ")


@pytest.mark.parametrize("texts", [["ping=300"], ["ping=20", "idle=20"]])
def test_an_idle_timeout_below_the_ping_interval_is_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"idle=.* is not more than ping=") as caught:
        Keys.take("beastws", EVERY, dict(text.split("=") for text in texts))
    assert str(caught.value).count(" by default") == 2 - len(texts)


@pytest.mark.parametrize(
    "texts", [["idle=31"], ["idle=2"], ["ping=299"], ["ping=0", "idle=1"], ["ping=9999", "idle=0"]]
)
def test_an_idle_timeout_above_the_ping_interval_is_accepted(texts: list[str]) -> None:
    Keys.take("beastws", EVERY, dict(text.split("=") for text in texts))


def test_the_error_for_an_unescaped_colon_shows_the_escaped_form() -> None:
    with pytest.raises(ValueError) as caught:
        take("origins=https")
    assert "https\\://example.com" in str(caught.value)


def test_the_error_for_a_bad_origin_has_the_right_one() -> None:
    with pytest.raises(ValueError, match=r"; write 'https://xn--bcher-kva\.example'"):
        take("origins=https://a,https://bücher.example")


def test_keys_of_other_endpoints_are_left() -> None:
    arguments = {"target": "/x", "backlog": "5", "authority": "x"}
    assert Keys.take("beastws", ("target", "ping"), arguments) == Keys(target="/x")
    assert arguments == {"backlog": "5", "authority": "x"}


def test_settings_without_keys_are_unchanged() -> None:
    settings = Settings(
        subprotocols=("chat",), timeouts=Timeouts(idle=9, ping_interval=3), origins=Origins(("https://a",))
    )
    assert Keys().applied_to(settings) == settings


def test_each_key_is_applied_to_its_setting() -> None:
    before = Settings(
        subprotocols=("chat",),
        timeouts=Timeouts(idle=9, ping_interval=3, close=7),
        origins=Origins(("https://a",), same_site=False),
    )
    keys = Keys(subprotocols=(), origins=("https://b",), timeouts={"idle": None})
    after = keys.applied_to(before)
    assert after.subprotocols == ()
    assert after.timeouts == Timeouts(idle=None, ping_interval=3, close=7)
    assert after.origins == Origins(("https://a", "https://b"), same_site=False)
