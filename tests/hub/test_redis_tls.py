"""TLS to a Redis: authorities, a client certificate, and plain reports of failures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from twisted_beastws.hub import Hub
from twisted_beastws.hub.redis import RedisBackplane

from ..support.loopback import until
from ..support.redis_server import redis_running
from ..tls import pki


@pytest.fixture
def hub(real_hub: Callable[..., Hub]) -> Callable[..., Hub]:
    return real_hub


class TestTLS:
    """TLS to a Redis, over real TCP."""

    @pytest.mark.parametrize(
        ("server", "host", "options", "words"),
        [
            (
                lambda: pki.Server("localhost", signer=pki.stranger()),
                "localhost",
                (),
                "no authority that this client trusts",
            ),
            (lambda: pki.Server("other.example", signer=pki.root()), "localhost", (), "it is for other.example"),
            (lambda: pki.Server("localhost", signer=pki.root(), age=5), "localhost", (), "has expired"),
            (
                lambda: pki.Server("localhost", signer=pki.root()),
                "localhost",
                ("--tls-auth-clients", "yes"),
                "requires a client certificate",
            ),
        ],
        ids=["unknown authority", "another name", "expired", "client certificate"],
    )
    @pytest_twisted.ensureDeferred
    async def test_a_failure_is_reported_in_plain_english(
        self,
        tmp_path: Path,
        hub: Callable[..., Hub],
        lines: list[str],
        monkeypatch: pytest.MonkeyPatch,
        server: Callable[[], Any],
        host: str,
        options: tuple[str, ...],
        words: str,
    ) -> None:
        certificate, authority = tmp_path / "certificate.pem", tmp_path / "authority.pem"
        certificate.write_bytes(server().pem())
        authority.write_bytes(pki.root_pem())
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(certificate)]
        files += ["--tls-ca-cert-file", str(authority), "--tls-port", "0"]
        with redis_running(tmp_path, *files, *(options or ("--tls-auth-clients", "no"))) as redis:
            redis.ask(f"CONFIG SET port 0 tls-port {redis.port}")
            one = hub(f"rediss://{host}:{redis.port}")
            await until(lambda: any("is away" in line for line in lines))
            assert any(words in line for line in lines), lines
            assert not one.ready
            await one.stop()

    @pytest_twisted.ensureDeferred
    async def test_an_authority_and_a_client_certificate_in_the_url_are_used(
        self, tmp_path: Path, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        server, client, authority = (tmp_path / f"{name}.pem" for name in ("server", "client", "authority"))
        server.write_bytes(pki.Server("localhost", signer=pki.root()).pem())
        client.write_bytes(pki.Server("client", signer=pki.root()).pem())
        authority.write_bytes(pki.root_pem())
        files = ["--tls-cert-file", str(server), "--tls-key-file", str(server), "--tls-ca-cert-file", str(authority)]
        with redis_running(tmp_path, *files, "--tls-port", "0", "--tls-auth-clients", "yes") as redis:
            redis.ask(f"CONFIG SET port 0 tls-port {redis.port}")
            one = hub(f"rediss://localhost:{redis.port}?ca={authority}&cert={client}")
            await until(lambda: one.ready)
            assert await one.publish("a", "hello")
            without = hub(f"rediss://localhost:{redis.port}?ca={authority}")
            await until(lambda: any("requires a client certificate" in line for line in lines))
            assert not without.ready
            await gatherResults([one.stop(), without.stop()])

    def test_a_file_that_cannot_be_used_is_named_at_once(self, tmp_path: Path) -> None:
        empty = tmp_path / "empty.pem"
        empty.write_text("")
        with pytest.raises(ValueError, match=r"the URL's ca=/nowhere: No such file"):
            RedisBackplane("rediss://h?ca=/nowhere")
        with pytest.raises(ValueError, match=rf"the URL's cert={empty}: there is no certificate in it"):
            RedisBackplane(f"rediss://h?cert={empty}")

    @pytest_twisted.ensureDeferred
    async def test_a_redis_without_tls_is_reported(
        self, tmp_path: Path, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        with redis_running(tmp_path) as redis:
            one = hub(f"rediss://localhost:{redis.port}")
            await until(lambda: any("is away" in line for line in lines))
            assert any("did not answer in time" in line or "closed the connection" in line for line in lines), lines
            await one.stop()
