"""Hubs on a real PostgreSQL: rights, sizes, other programs, and a server that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from twisted_beastws.hub import Hub, PublishUnknown
from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.hub.linked_errors import NotReplicated
from twisted_beastws.hub.postgres import PostgresBackplane
from twisted_beastws.hub.postgres_schema import FUNCTIONS, grant_sql, schema_sql
from twisted_beastws.hub.postgres_url import PostgresURL

from ..support.loopback import until
from ..support.patience import PATIENCE
from ..support.postgres_server import PostgresServer, postgres_running
from .planes import use_everything
from .stubs import Stub, connected


class TestURL:
    """The URL of a PostgreSQL, and the other arguments."""

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("postgresql://u:secret@h/db", "postgresql://h:5432/db"),
            ("postgres://h:7/db", "postgresql://h:7/db"),
            ("postgresql://a,b:6/db", "postgresql://a:5432,b:6/db"),
            ("postgresql://u@[::1]:7/db", "postgresql://[::1]:7/db"),
            ("postgresql:///db?host=/run/pg", "postgresql:///db?host=/run/pg"),
            ("postgresql:///db", "postgresql:///db?host=/var/run/postgresql"),
        ],
    )
    def test_a_url_is_shown_without_user_and_password(self, url: str, shown: str) -> None:
        assert str(PostgresURL.parse(url)) == shown

    @pytest.mark.parametrize(
        "url",
        [
            *("postgresql://u:secret@h/db/more", "postgresql://u:secret@h:x/db", "postgresql://u:secret@h:0/db"),
            *("mysql://u:secret@h/db", "postgresql://u:secret@[::1/db", "postgresql://u:secret@h/db#part"),
            *("postgresql://u:secret@h/db?sslmode=require", "postgresql://u:secret@h/db?host=/run"),
            *(
                "postgresql://u:secret@h/db?other=1",
                "postgresql:///db?host=run",
                "postgresql:///db?sslmode=verify-full",
            ),
            f"postgresql://{','.join('h' * 17)}/db",
        ],
    )
    def test_a_bad_url_is_refused_in_one_line_without_the_password(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"^the URL[^\n]*$") as caught:
            PostgresURL.parse(url)
        assert "secret" not in str(caught.value)

    def test_the_certificate_is_verified_unless_the_server_is_local(self) -> None:
        def mode(url: str) -> str:
            parsed = PostgresURL.parse(url)
            return parsed.parameters(parsed.hosts[0][0], "", 5432)["sslmode"]

        urls = ["postgresql://h/d", "postgresql://h/d?sslmode=disable", "postgresql://127.0.0.1/d", "postgresql:///d"]
        assert [mode(url) for url in urls] == ["verify-full", "disable", "disable", "disable"]

    def test_the_error_names_a_missing_file(self) -> None:
        with pytest.raises(ValueError, match="the URL's sslrootcert=/nowhere: No such file or directory"):
            PostgresBackplane("postgresql://h/d?sslrootcert=/nowhere")

    @pytest.mark.parametrize("prefix", ["", "1a", "pg_a", "a-b", 'a"', "a" * 49, "\u00e9"])
    def test_a_prefix_that_cannot_name_a_schema_is_refused(self, prefix: str) -> None:
        with pytest.raises(ValueError, match="1 to 48 ASCII letters"):
            PostgresBackplane("postgresql://h/d", prefix=prefix)

    @pytest.mark.parametrize("prefix", ["a" * 47, "a" * 48, "_A1"])
    def test_a_valid_prefix_is_accepted(self, prefix: str) -> None:
        assert PostgresBackplane("postgresql://h/d", prefix=prefix).prefix == prefix

    @pytest.mark.parametrize(("room", "rooms"), [(0, 10), (11, 10), (-1, 10)])
    def test_a_budget_of_a_room_above_that_of_all_rooms_is_refused(self, room: int, rooms: int) -> None:
        with pytest.raises(ValueError, match="max_room_history"):
            PostgresBackplane("postgresql://h/d", max_room_history=room, max_history=rooms)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_running() as server:
        yield server


@pytest.fixture
def clean(postgres: PostgresServer) -> PostgresServer:
    postgres.ask("DROP SCHEMA IF EXISTS beastws CASCADE")
    return postgres


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Hub]]:
    from twisted_beastws.hub import linked_reconnecting

    monkeypatch.setattr(linked_reconnecting, "backoff", lambda failures: 0.05)
    monkeypatch.setattr(linked_reconnecting, "BEAT", 0.2)
    hubs: list[Hub] = []

    def hub(url: str, **options: Any) -> Hub:
        hubs.append(Hub(PostgresBackplane(url, **options)))
        hubs[-1].start()
        return hubs[-1]

    yield hub
    pytest_twisted.blockon(gatherResults([each.stop() for each in hubs]))


def role_of(postgres: PostgresServer, name: str) -> str:
    """Make a role without any right; return the URL with which it connects."""
    if not postgres.ask(f"SELECT FROM pg_roles WHERE rolname = '{name}'"):
        postgres.ask(f"CREATE ROLE {name} LOGIN")
    return postgres.url.replace("postgres@", f"{name}@")


class TestRights:
    """The rights of the database user (`docs/howto/postgresql.md`)."""

    @pytest_twisted.ensureDeferred
    async def test_the_granted_functions_are_sufficient(
        self, clean: PostgresServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        url = role_of(clean, "chat")
        clean.ask(schema_sql("beastws") + grant_sql("beastws", "chat"))
        options = {"history": 4, "max_room_history": 10_000, "max_history": 12_000}
        await use_everything(hub(url, **options), hub(url, **options))
        assert not any("permission" in line for line in lines)

    @pytest_twisted.ensureDeferred
    async def test_the_log_reports_each_missing_right(
        self, clean: PostgresServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        url = role_of(clean, "chat")
        for missing in ("verify", "extend", "latest"):
            clean.ask(schema_sql("beastws") + grant_sql("beastws", "chat"))
            clean.ask(f"REVOKE EXECUTE ON FUNCTION beastws.{missing} FROM chat")
            lines.clear()
            one = hub(url)
            await until(lambda: any("the PostgreSQL user lacks a permission" in line for line in lines))
            assert not one.ready and one.backplane.state is BackplaneState.REFUSING
            await one.stop()

    @pytest_twisted.ensureDeferred
    async def test_the_log_shows_the_command_for_a_user_that_may_not_create_the_schema(
        self, clean: PostgresServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        one = hub(role_of(clean, "chat"))
        await until(lambda: any("python -m twisted_beastws.hub.postgres_schema" in line for line in lines))
        assert not one.ready

    def test_no_other_function_and_no_table_is_open_to_the_user(self, clean: PostgresServer) -> None:
        role_of(clean, "chat")
        clean.ask(schema_sql("beastws") + grant_sql("beastws", "chat"))
        allowed = clean.ask(
            "SELECT proname::text FROM pg_proc WHERE pronamespace = 'beastws'::regnamespace"
            " AND has_function_privilege('chat', oid, 'EXECUTE')"
        )
        assert sorted(str(row[0]) for row in allowed) == sorted(FUNCTIONS)
        tables = "SELECT FROM pg_class WHERE relnamespace = 'beastws'::regnamespace AND relkind = 'r'"
        assert clean.ask(tables)
        assert not clean.ask(f"{tables} AND has_table_privilege('chat', oid, 'SELECT, INSERT, UPDATE, DELETE')")

    def test_messages_and_entries_are_in_the_order_of_their_numbers(self, clean: PostgresServer) -> None:
        clean.ask(schema_sql("beastws"))
        clean.ask(
            "INSERT INTO beastws.messages (n, kept, previous_ms, previous_seq, epoch, payload, published) "
            "SELECT n, false, 0, 0, '', '', 0 FROM generate_series(8, 11) AS n"
        )
        clean.ask("INSERT INTO beastws.inbox (room, data) SELECT 'a', 'x' FROM generate_series(1, 11)")
        fetched = clean.ask("SELECT o_n FROM beastws.fetch(ARRAY[11, 10, 9, 8])")
        assert [row[0] for row in fetched] == ["8", "9", "10", "11"]
        entries = [int(f"{row[0]}") for row in clean.ask("SELECT o_n FROM beastws.inbox_entries(10)")]
        assert entries == list(range(entries[0], entries[0] + 10))

    @pytest_twisted.ensureDeferred
    async def test_a_newer_schema_is_refused_at_the_start(
        self, clean: PostgresServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        clean.ask(schema_sql("beastws"))
        clean.ask("CREATE OR REPLACE FUNCTION beastws.version() RETURNS text LANGUAGE sql AS $$ SELECT '999' $$")
        line = await hub(clean.url).backplane.refused  # type: ignore[attr-defined]
        assert "a newer version of twisted_beastws made the schema" in line and "postgres@" not in line

    @pytest_twisted.ensureDeferred
    async def test_an_earlier_schema_is_brought_up_to_date(
        self, clean: PostgresServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        clean.ask(schema_sql("beastws"))
        # Version 1 did not know whether its epoch is the first, and did not number the members.
        clean.ask("ALTER TABLE beastws.clock DROP COLUMN first")
        clean.ask("ALTER TABLE beastws.members DROP COLUMN n")
        clean.ask("CREATE OR REPLACE FUNCTION beastws.version() RETURNS text LANGUAGE sql AS $$ SELECT '1' $$")
        clean.ask("UPDATE beastws.clock SET epoch = 'e1', ms = 1, start_ms = 1, floor_ms = 1")
        one, member = hub(clean.url), Stub()
        await connected(one)
        assert not await one.join(member.connection, "a", after="0-0", name="ann")
        await one.publish("a", "1")
        await until(lambda: member.heard == ["1"])
        assert await one.who("a") == {"ann": None}


class TestMessages:
    """Messages and transactions."""

    @pytest.mark.parametrize("size", [7999, 8000, 8001, 1 << 20])
    @pytest_twisted.ensureDeferred
    async def test_a_message_may_be_longer_than_a_notification(
        self, clean: PostgresServer, hub: Callable[..., Hub], lines: list[str], size: int
    ) -> None:
        one, two = hub(clean.url), hub(clean.url)
        await connected(one, two)
        member = Stub()
        await two.join(member.connection, "a\u00f6")
        data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        await gatherResults([one.publish("a\u00f6", data), one.publish("a\u00f6", "7\u00e9", keep=False)])
        await until(lambda: len(member.heard) == 2)
        assert member.heard == [data, "7\u00e9"]

    @pytest_twisted.ensureDeferred
    async def test_a_message_counts_as_accepted_only_at_the_end_of_its_transaction(
        self, clean: PostgresServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        one = hub(clean.url)
        await until(lambda: one.ready)
        # A constraint that PostgreSQL checks when it commits: the function's rows come before that.
        clean.ask(
            "CREATE FUNCTION beastws.at_commit() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE SQLSTATE '53100' USING MESSAGE = 'no space left on device'; END $$;"
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON beastws.messages DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION beastws.at_commit()"
        )
        refused = await one.publish("a", "x").addErrback(lambda failure: failure.value)
        assert str(refused) == "the backplane is full: only the members here have the message"
        assert clean.ask("SELECT count(*) FROM beastws.messages") == [(0,)]
        clean.ask("DROP FUNCTION beastws.at_commit() CASCADE")
        await until(lambda: one.backplane.state is BackplaneState.CONNECTED)
        assert await one.publish("a", "x") is not None

    @pytest_twisted.ensureDeferred
    async def test_a_connection_that_the_server_ends_leaves_the_outcome_unknown(
        self, clean: PostgresServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        import psycopg

        one = hub(clean.url)
        await until(lambda: one.ready)
        with psycopg.connect(clean.url) as holder:
            holder.execute("SELECT FROM beastws.clock FOR UPDATE")
            publishing = one.publish("a", "x", ref="r")
            waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%publish%'"
            await until(lambda: clean.ask(waiting))
            clean.ask(f"SELECT pg_terminate_backend(({waiting} LIMIT 1))")
            outcome = await publishing.addErrback(lambda failure: failure.value)
        assert isinstance(outcome, PublishUnknown)
        await until(lambda: one.backplane.state is BackplaneState.CONNECTED)
        assert await one.publish("a", "x", ref="r") is not None

    @pytest_twisted.ensureDeferred
    async def test_messages_that_were_deleted_before_they_were_fetched_are_a_gap(
        self, clean: PostgresServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        one = hub(clean.url)
        await until(lambda: one.ready)
        member = Stub()
        await one.join(member.connection, "a", gap=lambda message: "GAP")
        # The test delays the link's reading, as a slow network does.
        one.backplane._link.pause()  # type: ignore[attr-defined]
        await one.publish("a", "lost")
        clean.ask("DELETE FROM beastws.messages")
        one.backplane._link.resume()  # type: ignore[attr-defined]
        await until(lambda: member.heard == ["GAP"])


class TestOtherPrograms:
    """Other programs publish by inserting rows."""

    @pytest_twisted.ensureDeferred
    async def test_a_row_is_published_once_when_its_transaction_commits(
        self, clean: PostgresServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        import psycopg

        one, two = hub(clean.url), hub(clean.url)
        await until(lambda: one.ready and two.ready)
        members = [Stub(), Stub()]
        await gatherResults([each.join(to.connection, "a") for each, to in zip((one, two), members, strict=True)])
        url = role_of(clean, "program")
        clean.ask("GRANT USAGE ON SCHEMA beastws TO program; GRANT INSERT ON beastws.inbox TO program")
        with psycopg.connect(url) as program:
            program.execute("INSERT INTO beastws.inbox (room, data) VALUES ('a', 'first'), ('a', 'second')")
            program.rollback()
            program.execute("INSERT INTO beastws.inbox (room, data, ref) VALUES ('a', '1', 'r'), ('a', '1', 'r')")
            program.execute("INSERT INTO beastws.inbox (room, binary_data, keep) VALUES ('a', '\\x00ff', false)")
            program.commit()
        await until(lambda: all(member.heard == ["1", b"\x00\xff"] for member in members))
        await until(lambda: clean.ask("SELECT count(*) FROM beastws.inbox") == [(0,)])

    def test_the_documentation_shows_the_grants(self) -> None:
        page = (Path(__file__).parents[2] / "docs" / "howto" / "postgresql.md").read_text()
        assert "GRANT INSERT ON beastws.inbox TO program" in page
        for function in FUNCTIONS:
            assert f"beastws.{function}" in page


class TestWarnings:
    """Warnings of the server about a commit."""

    @pytest.mark.parametrize(("code", "uncertain"), [("01000", True), ("57P01", True), ("57P02", False)])
    @pytest_twisted.ensureDeferred
    async def test_a_warning_makes_a_commit_uncertain_unless_another_process_crashed(
        self, postgres: PostgresServer, code: str, uncertain: bool
    ) -> None:
        from twisted.internet import reactor

        from twisted_beastws.hub.postgres_connection import PostgresConnection

        warns = f"BEGIN RAISE WARNING 'careful' USING ERRCODE = '{code}'; RETURN $1; END"
        connection = PostgresConnection(reactor, PATIENCE)
        connection.connect({"host": str(postgres.directory), "user": "postgres", "dbname": "postgres"})
        await connection.ready
        await connection.call(f"CREATE OR REPLACE FUNCTION warns(text) RETURNS text LANGUAGE plpgsql AS $$ {warns} $$")
        answer = await connection.call("SELECT warns($1)", "said").addErrback(lambda failure: failure.value)
        assert isinstance(answer, NotReplicated) if uncertain else answer == [[b"said"]]
        connection.drop()
        await connection.gone
