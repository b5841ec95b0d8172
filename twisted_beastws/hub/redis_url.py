"""`RedisURL`: the address of a Redis, of the primary that Sentinels know, or of a Cluster, and its settings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, parse_qsl, unquote

from twisted_beastws.hub.authority import split_authority

FORMS = (
    "redis://[[user]:password@]host[:port][/database], rediss://... for TLS, "
    "redis+sentinel://[[user]:password@]host[:port],host[:port]/service[/database], "
    "redis+cluster://[[user]:password@]host[:port],host[:port], "
    "or unix:///path/to/socket[?db=database]"
)

SENTINEL_PORT = 26379

CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")

SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", *CLUSTER_SCHEMES)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:,@/]+)(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class RedisURL:
    """The address of a Redis.

    Attributes:
        host, port: the server's.
        path: its UNIX socket, instead of them.
        tls: the connection uses TLS, and the server's certificate is verified.
        database: the number of the database.
        username, password: the Redis user.
        authorities: a file of the authorities that may sign the server's certificate; None is the platform's.
        certificate: a file with the client's key and certificate.
        min_replicas: replicas that must have a message before it counts as accepted.
        sentinels: hosts and ports of Sentinels, which know the primary's address.
        service: the name under which the Sentinels know it.
        sentinel_password: the Sentinels' own password.
        cluster: the server is a node of a Redis Cluster.
        nodes: hosts and ports of some of its nodes, which know the others.
    """

    host: str = ""
    port: int = 6379
    path: str = ""
    tls: bool = False
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    authorities: str | None = None
    certificate: str | None = None
    min_replicas: int = 0
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_password: str | None = field(default=None, repr=False)
    cluster: bool = False
    nodes: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, url: str) -> RedisURL:
        """Read a URL.

        Raises:
            ValueError: it is not the address of a Redis. The text is one line without a password.
        """
        parts, authority = split_authority(url)
        if parts.fragment:
            raise ValueError(f"the URL has a part that means nothing here: give {FORMS}")
        login, _, hosts = authority.rpartition("@")
        user, _, word = login.partition(":")
        username, password = unquote(user) or None, unquote(word) or None
        if username is not None and password is None:
            raise ValueError("the URL has a user without a password: give redis://user:password@host")
        found = replace(_location(parts, hosts), username=username, password=password)
        return _with_settings(found, parts)

    def at(self, host: str, port: int) -> RedisURL:
        """Return the address of one server of those that the Sentinels or the Cluster named."""
        return replace(self, host=host, port=port, sentinels=(), nodes=())

    def sentinel(self, host: str, port: int) -> RedisURL:
        """Return the address of one Sentinel."""
        password = self.sentinel_password
        return replace(self, host=host, port=port, database=0, username=None, password=password, sentinels=())

    def check_files(self) -> None:
        """Raise ``ValueError`` if a file of the URL cannot be used."""
        if self.authorities is None and self.certificate is None:
            return
        from twisted_beastws.tls.pem import read_authorities, read_identity

        for setting, path, read in (
            ("ca", self.authorities, read_authorities),
            ("cert", self.certificate, read_identity),
        ):
            try:
                if path is not None:
                    read(path)
            except OSError as error:
                raise ValueError(f"the URL's {setting}={path}: {error.strerror}") from None
            except ValueError as error:
                raise ValueError(f"the URL's {setting}={path}: {error}") from None

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}?db={self.database}"
        scheme = "rediss" if self.tls else "redis"
        hosts = ",".join(_address(host, port) for host, port in self.sentinels or self.nodes)
        if self.sentinels:
            return f"{scheme}+sentinel://{hosts}/{self.service}/{self.database}"
        if self.nodes:
            return f"{scheme}+cluster://{hosts}"
        return f"{scheme}://{_address(self.host, self.port)}/{self.database}"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refusal() -> ValueError:
    return ValueError(f"the URL is not that of a Redis: give {FORMS}")


def _location(parts: SplitResult, hosts: str) -> RedisURL:
    if parts.scheme == "unix" and not hosts and parts.path not in ("", "/"):
        return RedisURL(path=unquote(parts.path))
    if parts.scheme not in SCHEMES or not hosts:
        raise _refusal()
    tls, path = parts.scheme.startswith("rediss"), parts.path.removeprefix("/")
    if parts.scheme in CLUSTER_SCHEMES:
        if path:
            raise ValueError("the URL has a path, but a Redis Cluster has no databases: give redis+cluster://host")
        return RedisURL(tls=tls, cluster=True, nodes=_hosts(hosts, 6379, most=16))
    if not parts.scheme.endswith("+sentinel"):
        ((host, port),) = _hosts(hosts, 6379, most=1)
        return RedisURL(host, port, tls=tls, database=_database(path))
    service, _, database = path.partition("/")
    if not service:
        raise ValueError("the URL names no service: give redis+sentinel://host/service")
    sentinels = _hosts(hosts, SENTINEL_PORT, most=16)
    return RedisURL(tls=tls, database=_database(database), sentinels=sentinels, service=unquote(service))


def _hosts(text: str, port: int, most: int) -> tuple[tuple[str, int], ...]:
    found = [_HOST.fullmatch(each) for each in text.split(",")]
    hosts = tuple((each["host"].strip("[]").lower(), int(each["port"] or port)) for each in found if each is not None)
    if len(hosts) != len(found) or len(hosts) > most or not all(0 < number < 65536 for _, number in hosts):
        raise _refusal()
    return hosts


def _with_settings(url: RedisURL, parts: SplitResult) -> RedisURL:
    """Read the part after the question mark."""
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "db" and url.path:
            url = replace(url, database=_database(value))
        elif name == "min_replicas" and re.fullmatch("[0-9]", value):
            url = replace(url, min_replicas=int(value))
        elif name == "ca" and url.tls and value:
            url = replace(url, authorities=value)
        elif name == "cert" and url.tls and value:
            url = replace(url, certificate=value)
        elif name == "sentinel_password" and url.sentinels and value:
            url = replace(url, sentinel_password=value)
        else:
            raise ValueError(f"the URL's {name}= means nothing here, or not with this value: {_SETTINGS}")
    return url


_SETTINGS = "db (unix:), ca and cert (rediss:), sentinel_password (+sentinel:), min_replicas (0 to 9)"


def _database(text: str) -> int:
    if not re.fullmatch("[0-9]{0,9}", text):
        raise ValueError("the URL's database is no number: give redis://host/0")
    return int(text or 0)
