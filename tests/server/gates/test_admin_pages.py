"""Tests of `AdminPages` in front of a program's own protocol. `tests/service/test_admin.py` tests each page."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from twisted_beastws import AdminPages, Metrics, PasswordLogin, WebSocketServerFactory
from twisted_beastws.testing import Frame, scripted_client

from ...support.protocols import Echo


def status(factory: Any, path: str, host: str = "localhost") -> str:
    peer = scripted_client(factory, opened=False)
    peer.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    peer.flush()
    head: bytes = peer.read_head()
    return head.split(b" ", 2)[1].decode()


class TestOneFactory:
    """One factory serves the pages and the application."""

    def test_the_admin_pages_are_served_and_other_requests_reach_the_application(self) -> None:
        pytest.importorskip("prometheus_client", reason="METRICS ARE NOT TESTED: pip install prometheus_client")
        factory = WebSocketServerFactory(Echo, clock=Clock())
        factory.add_gate(AdminPages(Metrics(factory), names=["talk.example"]))
        peer = scripted_client(factory)
        peer.send(Frame.text("x"))
        peer.expect(Frame.text("x"))
        assert [status(factory, path) for path in ("/metrics", "/healthz", "/readyz", "/")] == [
            "200",
            "200",
            "200",
            "426",
        ]
        assert status(factory, "/metrics", "talk.example") == "200"
        assert status(factory, "/metrics", "evil.example") == "421"

    def test_only_the_health_is_served_without_metrics(self) -> None:
        ready = [False]
        factory = WebSocketServerFactory(Echo, clock=Clock())
        factory.add_gate(AdminPages(ready=lambda: ready[0]))
        assert (status(factory, "/metrics"), status(factory, "/readyz")) == ("426", "503")
        ready[0] = True
        assert status(factory, "/readyz") == "200"

    def test_a_login_gate_before_the_admin_pages_covers_them(self) -> None:
        factory = WebSocketServerFactory(Echo, clock=Clock())
        factory.add_gate(PasswordLogin(["memory:ann:secret"]))
        factory.add_gate(AdminPages(Metrics(factory)))
        assert status(factory, "/metrics") == "401"
