"""The schema of a `PostgresBackplane`: tables, and functions that do in one transaction what Redis' scripts do.

`python -m twisted_beastws.hub.postgres_schema [SCHEMA]` prints the SQL, for an administrator who creates it once. The
functions run with the rights of the schema's owner, so the backplane's own user needs no right on any table.

- ``clock``, one row: ``epoch``, the dataset's name, and ``former``, the names of those before; ``ms`` and ``seq``, the
  latest id; ``start_...``, the latest id when the epoch began; ``floor_...``, the latest id of the rooms whose records
  were removed; ``size``, bytes of all histories; ``server``, ``unsure`` and ``first``, as `redis_scripts` describes
  them; ``n``, the number of the latest message; ``tail``, bytes of the messages that no history has.
- ``messages``: those of the histories (``kept``), and for `TAIL` seconds all others, which hubs still have to fetch.
- ``rooms``: for each room with a history, its latest id, its messages and its bytes.
- ``ids``, ``refs``, ``hubs``, ``witnesses``: as in Redis. ``leases`` and ``members``: the hubs' members with a name; by
  their numbers ``n`` a room is listed page by page.
- ``inbox``: messages that other programs publish.

Each publication locks the one row of ``clock`` until its transaction has ended. So ids rise in the order in which the
transactions commit, which is the order in which PostgreSQL delivers the notifications. A notification has the number
of a message; hubs that have members in its room fetch the message, of any size.

The server counts as changed (see `redis_scripts`) when its system identifier or its timeline is another one: a replica
was promoted, or a backup was restored. A restart alone changes neither, because an acknowledged transaction is on disk;
where ``fsync`` is off, each start of the server counts.
"""

from __future__ import annotations

import sys
from pathlib import Path

from twisted_beastws.hub.backplane import MAX_REFS, REF_TIME

VERSION = 2
"""The version of the tables and functions."""

TAIL = 60
"""Seconds for which messages outside of the histories can be fetched. A hub that pauses for longer reports a gap."""

MAX_TAIL = 1 << 26
"""Bytes of these messages: 64 MiB. Beyond it the oldest ones go earlier."""

TTL = 86400
"""Seconds that a room's history is kept at least after its last message: a day, as in Redis."""

ENTRY_COST = 128
"""Bytes that a message counts beside its payload, as in Redis."""

ROOM_COST = 1024
"""Bytes that a room counts beside its messages, as in Redis."""

MAX_IDS = 65536
"""Ids of the latest messages, by which a hub that returns knows the dataset again."""

FUNCTIONS = (
    *("version", "verify", "publish", "fetch", "latest", "read", "sweep"),
    *("enter", "leave", "announce", "extend", "forget", "listings", "inbox_entries", "inbox_remove"),
)
"""The functions that the backplane's user must be allowed to execute."""


def schema_sql(name: str) -> str:
    """Return the SQL that creates the schema ``name``, or brings it up to date. It can run again at any time."""
    folder = Path(__file__).parent
    text = "".join((folder / f"postgres_{part}.sql").read_text("utf-8") for part in ("tables", "functions"))
    text = text.replace("{schema}", f'"{name}"').replace("{channel}", name)
    numbers = {
        "version": VERSION,
        "ref_time": REF_TIME * 1000,
        "max_refs": MAX_REFS,
        "max_ids": MAX_IDS,
        "entry_cost": ENTRY_COST,
        "room_cost": ROOM_COST,
        "ttl": TTL * 1000,
        "tail": TAIL * 1000,
        "max_tail": MAX_TAIL,
    }
    for word, number in numbers.items():
        text = text.replace(f"{{{word}}}", str(number))
    # Hubs that start together create it one after the other.
    return f"SELECT pg_advisory_xact_lock(hashtext('{name}'));\n{text}"


def grant_sql(name: str, role: str) -> str:
    """Return the SQL that gives ``role`` the least rights with which a backplane works."""
    return f'GRANT USAGE ON SCHEMA "{name}" TO "{role}";\n' + "".join(
        f'GRANT EXECUTE ON FUNCTION "{name}".{function} TO "{role}";\n' for function in FUNCTIONS
    )


if __name__ == "__main__":
    print(schema_sql(sys.argv[1] if len(sys.argv) > 1 else "beastws"), end="")
