-- The tables of a PostgresBackplane: postgres_schema.py describes them, and replaces the words in braces.

CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.clock (
    single boolean PRIMARY KEY DEFAULT true CHECK (single), epoch text NOT NULL DEFAULT '', former text NOT NULL DEFAULT '',
    ms bigint NOT NULL DEFAULT 0, seq bigint NOT NULL DEFAULT 0,
    start_ms bigint NOT NULL DEFAULT 0, start_seq bigint NOT NULL DEFAULT 0,
    floor_ms bigint NOT NULL DEFAULT 0, floor_seq bigint NOT NULL DEFAULT 0,
    size bigint NOT NULL DEFAULT 0, tail bigint NOT NULL DEFAULT 0, n bigint NOT NULL DEFAULT 0,
    server text NOT NULL DEFAULT '', unsure bigint
) WITH (fillfactor = 10);
ALTER TABLE {schema}.clock ADD COLUMN IF NOT EXISTS first boolean NOT NULL DEFAULT false;
CREATE TABLE IF NOT EXISTS {schema}.messages (
    n bigint PRIMARY KEY, room bytea, kept boolean NOT NULL, ms bigint, seq bigint, previous_ms bigint NOT NULL,
    previous_seq bigint NOT NULL, epoch text NOT NULL, payload bytea NOT NULL, published bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_kept ON {schema}.messages (room, ms, seq) WHERE kept;
CREATE INDEX IF NOT EXISTS messages_tail ON {schema}.messages (n) WHERE NOT kept;
CREATE TABLE IF NOT EXISTS {schema}.rooms (
    room bytea PRIMARY KEY, ms bigint NOT NULL, seq bigint NOT NULL, messages bigint NOT NULL, bytes bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS rooms_ages ON {schema}.rooms (ms, room);
CREATE TABLE IF NOT EXISTS {schema}.ids (ms bigint, seq bigint, PRIMARY KEY (ms, seq));
CREATE TABLE IF NOT EXISTS {schema}.refs (
    ref text PRIMARY KEY, n bigint GENERATED ALWAYS AS IDENTITY UNIQUE, id text NOT NULL, published bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS {schema}.hubs (
    hub text PRIMARY KEY, seen bigint NOT NULL, awaits_ms bigint, awaits_seq bigint
);
CREATE TABLE IF NOT EXISTS {schema}.witnesses (hub text PRIMARY KEY);
CREATE TABLE IF NOT EXISTS {schema}.leases (lease text PRIMARY KEY, until bigint NOT NULL);
CREATE TABLE IF NOT EXISTS {schema}.members (
    room bytea, lease text, member text, listing bytea NOT NULL, PRIMARY KEY (room, lease, member)
);
ALTER TABLE {schema}.members ADD COLUMN IF NOT EXISTS n bigint GENERATED ALWAYS AS IDENTITY;
CREATE INDEX IF NOT EXISTS members_rooms ON {schema}.members (room, n);
CREATE INDEX IF NOT EXISTS members_leases ON {schema}.members (lease);
CREATE TABLE IF NOT EXISTS {schema}.inbox (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, room text NOT NULL CHECK (room <> ''), data text,
    binary_data bytea, keep boolean NOT NULL DEFAULT true, ref text NOT NULL DEFAULT '',
    CHECK ((data IS NULL) <> (binary_data IS NULL))
);

INSERT INTO {schema}.clock DEFAULT VALUES ON CONFLICT DO NOTHING;
