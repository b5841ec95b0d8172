"""`PostgresURL`: the address of a PostgreSQL, and the settings of its connections."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from twisted_beastws.hub.authority import split_authority

FORMS = (
    "postgresql://[user[:password]@][host[:port][,host[:port]...]]/database, "
    "or postgresql:///database?host=/directory/of/socket"
)

SCHEMES = ("postgresql", "postgres")

MAX_HOSTS = 16

_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:,@/]+)(:(?P<port>[0-9]{1,5}))?")

SETTINGS = (
    *("host", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "target_session_attrs"),
    *("passfile", "options", "krbsrvname", "gssencmode", "channel_binding", "require_auth"),
)
"""Settings of libpq that a URL can have. The backplane sets the others itself."""


@dataclass(frozen=True)
class PostgresURL:
    """The address of a PostgreSQL.

    Attributes:
        hosts: hosts and ports, which are tried in this order; a path is the directory of a UNIX socket.
        database: the database's name; empty is the user's.
        username, password: the PostgreSQL user.
        settings: further settings of libpq.
    """

    hosts: tuple[tuple[str, int], ...]
    database: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    settings: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> PostgresURL:
        """Read a URL.

        Raises:
            ValueError: it is not the address of a PostgreSQL. The text is one line without a password.
        """
        parts, authority = split_authority(url)
        database = parts.path.removeprefix("/")
        if parts.scheme not in SCHEMES or parts.fragment or "/" in database:
            raise _refusal()
        login, _, location = authority.rpartition("@")
        user, _, word = login.partition(":")
        settings = dict(parse_qsl(parts.query, keep_blank_values=True))
        for name, value in settings.items():
            if name not in SETTINGS or not value:
                raise ValueError(f"the URL's {name}= means nothing here, or is empty: give {', '.join(SETTINGS)}")
        hosts = _hosts(unquote(location), settings.pop("host", ""))
        _check_tls(hosts, settings.get("sslmode"))
        return cls(hosts, unquote(database), unquote(user) or None, unquote(word) or None, tuple(settings.items()))

    def check_files(self) -> None:
        """Raise ``ValueError`` if a file of the URL cannot be read."""
        for name, value in self.settings:
            if name in ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile") and value != "system":
                try:
                    with open(value, "rb"):
                        pass
                except OSError as error:
                    raise ValueError(f"the URL's {name}={value}: {error.strerror}") from None

    def __str__(self) -> str:
        if _is_path(self.hosts[0][0]):
            return f"postgresql:///{self.database}?host={self.hosts[0][0]}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"postgresql://{hosts}/{self.database}"

    def parameters(self, host: str, address: str, port: int) -> dict[str, str]:
        """Return libpq's settings for a connection to one host.

        Args:
            host: the name, which the server's certificate must have; or the directory of a socket.
            address: its IP address, which libpq then need not look up; empty for a socket.
            port: the port.
        """
        local = _is_path(host) or host in _LOOPBACK
        found = {
            "host": host,
            "port": str(port),
            "application_name": "twisted_beastws",
            "client_encoding": "UTF8",
            "sslmode": "disable" if local else "verify-full",
            # Of several hosts, the one that takes writes is the primary.
            "target_session_attrs": "read-write",
        }
        optional = {"hostaddr": address, "dbname": self.database, "user": self.username, "password": self.password}
        found.update({name: value for name, value in optional.items() if value})
        found.update(self.settings)
        return found


_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _is_path(host: str) -> bool:
    return host.startswith(("/", "@"))


def _refusal() -> ValueError:
    return ValueError(f"the URL is not that of a PostgreSQL: give {FORMS}")


def _hosts(text: str, directory: str) -> tuple[tuple[str, int], ...]:
    if directory:
        found = re.fullmatch("(.+?)(:([0-9]{1,5}))?", text) if text else None
        if not _is_path(directory) or found is not None:
            raise ValueError("the URL's host= must be the directory of a socket, in a URL without another host")
        return ((directory, 5432),)
    if not text:
        return (("/var/run/postgresql", 5432),)
    matches = [_HOST.fullmatch(each) for each in text.split(",")]
    hosts = tuple((each["host"].strip("[]"), int(each["port"] or 5432)) for each in matches if each is not None)
    if len(hosts) != len(matches) or len(hosts) > MAX_HOSTS or not all(0 < port < 65536 for _, port in hosts):
        raise _refusal()
    return hosts


def _check_tls(hosts: tuple[tuple[str, int], ...], mode: str | None) -> None:
    if mode is not None and mode not in ("disable", "verify-full"):
        # The other modes accept any server, or no TLS at all.
        raise ValueError(
            f"the URL's sslmode={mode} does not verify the server: give verify-full, or disable on a trusted network"
        )
    if mode == "verify-full" and _is_path(hosts[0][0]):
        raise ValueError("the URL's sslmode=verify-full means nothing for a UNIX socket")
