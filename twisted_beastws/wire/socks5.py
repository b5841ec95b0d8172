"""The client's side of SOCKS5 (RFC 1928) with a user name and password (RFC 1929): bytes in, bytes out."""

from __future__ import annotations

from ipaddress import ip_address

from twisted_beastws.errors import SocksDeclined

VERSION = 5
NO_AUTHENTICATION, USERNAME, NO_METHOD = 0, 2, 0xFF
CONNECT = 1
IPV4, NAME, IPV6 = 1, 3, 4
MAX_CREDENTIAL = 255
"""The most bytes of a user name or a password (RFC 1929 §2)."""

_SIZES = {IPV4: 4, IPV6: 16}
# RFC 1928 §6
_WHY = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "it cannot CONNECT",
    8: "it does not take this type of address",
}


class Socks5:
    """Asks a SOCKS5 proxy for a connection to ``host`` and ``port``; the proxy resolves names.

    Args:
        host: A host name in ASCII, or an IP address without brackets.
        port: The port.
        user: The user name, empty for none.
        password: The password.

    Raises:
        ValueError: A name is longer than SOCKS5 allows.

    Attributes:
        done: The proxy connected. `rest` returns the bytes that it sent after its reply.
    """

    __slots__ = ("_credentials", "_parse", "_received", "_request", "done")

    def __init__(self, host: str, port: int, user: str = "", password: str = "") -> None:
        self._request = bytes((VERSION, CONNECT, 0)) + _address(host) + port.to_bytes(2, "big")
        self._credentials = b""
        if user or password:
            self._credentials = b"\x01" + _counted("user name", user) + _counted("password", password)
        self._received = b""
        self._parse = self._method
        self.done = False

    def greeting(self) -> bytes:
        """Return the bytes that the client sends first."""
        methods = bytes((NO_AUTHENTICATION, USERNAME) if self._credentials else (NO_AUTHENTICATION,))
        return bytes((VERSION, len(methods))) + methods

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the proxy; return the bytes to send.

        Raises:
            SocksDeclined: The proxy does not connect, or does not speak SOCKS5.
        """
        self._received += data
        answer = b""
        while not self.done and (more := self._parse()) is not None:
            answer += more
        return answer

    def rest(self) -> bytes:
        """Remove and return the bytes after the proxy's reply."""
        rest, self._received = self._received, b""
        return rest

    def _take(self, size: int) -> bytes | None:
        if len(self._received) < size:
            return None
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _method(self) -> bytes | None:
        self._check_version(VERSION)
        if (reply := self._take(2)) is None:
            return None
        if reply[1] == NO_AUTHENTICATION:
            self._parse = self._reply
            return self._request
        if reply[1] == USERNAME and self._credentials:
            self._parse = self._authenticated
            return self._credentials
        if reply[1] == NO_METHOD:
            raise SocksDeclined(
                "it wants another way of authentication" if self._credentials else "it wants a user name and a password"
            )
        raise SocksDeclined("it chose a way of authentication that was not offered")

    def _authenticated(self) -> bytes | None:
        # RFC 1929 §2
        if (reply := self._take(2)) is None:
            return None
        if reply[1] != 0:
            raise SocksDeclined("the user name or the password is wrong")
        self._parse = self._reply
        return self._request

    def _reply(self) -> bytes | None:
        self._check_version(VERSION)
        received = self._received
        if len(received) < 5:
            return None
        if received[1] != 0:
            raise SocksDeclined(_WHY.get(received[1], f"error {received[1]}"), received[1])
        size = received[4] + 1 if received[3] == NAME else _SIZES.get(received[3])
        if size is None:
            raise SocksDeclined("its reply is not SOCKS5")
        # RFC 1928 §6: the address that the proxy bound means nothing to a client.
        if self._take(4 + size + 2) is not None:
            self.done = True
        return None

    def _check_version(self, version: int) -> None:
        if self._received and self._received[0] != version:
            raise SocksDeclined("it does not speak SOCKS5")


def _address(host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        return bytes((NAME,)) + _counted("host", host)
    return bytes((IPV4 if address.version == 4 else IPV6,)) + address.packed


def _counted(what: str, text: str) -> bytes:
    octets = text.encode()
    if not 0 < len(octets) <= MAX_CREDENTIAL:
        raise ValueError(f"the {what} of a SOCKS5 proxy has 1 to {MAX_CREDENTIAL} bytes, not {len(octets)}")
    return bytes((len(octets),)) + octets
