"""Endpoints' descriptions, as the service changes them."""

from __future__ import annotations

import pytest

from twisted_beastws.service.descriptions import with_unix_mode


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("unix:/run/x", "unix:/run/x:mode=660"),
        ("unix:/run/x:lockfile=0", "unix:/run/x:lockfile=0:mode=660"),
        (r"unix:/run/a\:mode=1", r"unix:/run/a\:mode=1:mode=660"),
        ("unix:address=/run/x", "unix:address=/run/x:mode=660"),
        ("unix:/run/x:mode=666", "unix:/run/x:mode=666"),
        ("unix:/run/x:600", "unix:/run/x:600"),
        ("unix:/run/x:600:50", "unix:/run/x:600:50"),
        ("haproxy:unix:/run/x", "haproxy:unix:/run/x:mode=660"),
        ("beastws:haproxy:unix:/run/x:target=/t", "beastws:haproxy:unix:/run/x:target=/t:mode=660"),
        ("beastws:unix:/run/x:mode=600", "beastws:unix:/run/x:mode=600"),
        ("tcp:80", "tcp:80"),
        ("systemd:domain=UNIX:index=0", "systemd:domain=UNIX:index=0"),
    ],
)
def test_a_unix_socket_is_accessible_to_its_group(given: str, used: str) -> None:
    assert with_unix_mode(given) == used
