"""`PostgresBackplane` joins hubs on any number of machines through a PostgreSQL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from twisted_beastws.hub.arguments import check_budgets
from twisted_beastws.hub.linked import LinkedBackplane
from twisted_beastws.hub.linked_interfaces import LinkCommands
from twisted_beastws.hub.postgres_url import PostgresURL

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

_SCHEMA = re.compile("(?!pg_)[A-Za-z_][A-Za-z0-9_]{0,47}")


def check_schema(prefix: str) -> None:
    """Raise ``ValueError`` for a prefix that cannot be the name of a schema."""
    if not _SCHEMA.fullmatch(prefix):
        raise ValueError(
            f"{prefix!r} must be 1 to 48 ASCII letters, digits and underscores, and not begin with a digit or pg_"
        )


class PostgresBackplane(LinkedBackplane):
    """Joins hubs through a PostgreSQL of version 14 or later; needs the extra ``postgres``.

    PostgreSQL gives each message an id, puts it into the room's history and notifies every hub, which fetches the
    messages of the rooms that have members there. So all members see one order. The guarantees are those of
    `RedisBackplane`; docs/topics/guarantees.md lists them.

    Args:
        url: ``postgresql://[user[:password]@]host[:port][,host...]/database``, or
            ``postgresql:///database?host=/directory/of/socket``. TLS verifies the server, except on a UNIX socket and a
            loopback address; ``sslmode=disable`` is for a trusted network. Of several hosts the primary is used.
        history: messages of each room that PostgreSQL keeps; 0 keeps none. 100.
        max_room_history: bytes of a room's history, with 128 for each message. Beyond it PostgreSQL drops the oldest
            messages. 4 MiB.
        max_history: bytes of the histories of all rooms in the schema, with 1024 for each room. Beyond it PostgreSQL
            drops the histories of the rooms that were quiet for longest. 64 MiB, as `LocalBackplane`'s.
        max_in_flight: bytes of publications without an answer. Beyond it `publish` fails, and no member gets the
            message. 16 MiB.
        prefix: the name of the schema, by which several applications share a database: 1 to 48 ASCII letters, digits
            and underscores. The backplane creates it if the user may. "beastws".
        reactor: None is the installed one.

    `LinkedBackplane` has the attributes.

    Raises:
        ValueError: an argument cannot be used. Its text has no password in it.
    """

    def __init__(
        self,
        url: str,
        *,
        history: int = 100,
        max_room_history: int = 1 << 22,
        max_history: int = 1 << 26,
        max_in_flight: int = 1 << 24,
        prefix: str = "beastws",
        reactor: IReactorTime | None = None,
    ) -> None:
        self._address = PostgresURL.parse(url)
        self._address.check_files()
        check_schema(prefix)
        check_budgets("PostgresBackplane", max_room_history, max_history)
        super().__init__(
            self._address,
            history=history,
            max_room_history=max_room_history,
            max_history=max_history,
            max_in_flight=max_in_flight,
            prefix=prefix,
            reactor=reactor,
        )

    def _make_link(self) -> LinkCommands:
        try:
            from twisted_beastws.hub.postgres_link import PostgresLink
        except ModuleNotFoundError as error:
            raise ImportError("PostgresBackplane needs an extra: pip install 'twisted_beastws[postgres]'") from error

        budgets = (self.max_room_history, self.max_history)
        return PostgresLink(self._address, self, self.reactor, self.prefix, *budgets, self.hub_name)
