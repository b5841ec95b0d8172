-- The functions of a PostgresBackplane: each does in one transaction what one of Redis' scripts does.

CREATE OR REPLACE FUNCTION {schema}.version() RETURNS text LANGUAGE sql AS $$ SELECT '{version}' $$;

CREATE OR REPLACE FUNCTION {schema}.now_ms() RETURNS bigint LANGUAGE sql AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

CREATE OR REPLACE FUNCTION {schema}.server() RETURNS text LANGUAGE sql AS $$
    SELECT system_identifier || ' ' || left(pg_walfile_name(pg_current_wal_lsn()), 8)
        || CASE WHEN current_setting('fsync') = 'off' THEN ' ' || pg_postmaster_start_time() ELSE '' END
    FROM pg_control_system()
$$;

CREATE OR REPLACE FUNCTION {schema}.begin_epoch(
    c {schema}.clock, p_ms bigint, p_seq bigint, p_epoch text, p_name text
) RETURNS {schema}.clock LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
DECLARE v_now bigint := now_ms(); v_name text;
BEGIN
    c.first := c.epoch = '' AND (p_ms, p_seq, p_epoch) = (0, 0, '') AND NOT EXISTS (SELECT FROM ids);
    IF (c.ms, c.seq) < (p_ms, p_seq) THEN
        c.ms := p_ms; c.seq := p_seq;
    END IF;
    IF v_now > c.ms THEN
        c.ms := v_now; c.seq := 0;
    END IF;
    FOREACH v_name IN ARRAY ARRAY[c.epoch, p_epoch] LOOP
        IF v_name <> '' AND position(v_name IN c.former) = 0 THEN
            c.former := right(c.former || ' ' || v_name, 72);
        END IF;
    END LOOP;
    c.epoch := p_name; c.unsure := NULL; c.server := server();
    c.start_ms := c.ms; c.start_seq := c.seq; c.floor_ms := c.ms; c.floor_seq := c.seq;
    DELETE FROM ids;
    INSERT INTO ids VALUES (c.ms, c.seq);
    RETURN save(c);
END $$;

CREATE OR REPLACE FUNCTION {schema}.save(c {schema}.clock) RETURNS {schema}.clock
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
BEGIN
    UPDATE clock SET epoch = c.epoch, former = c.former, ms = c.ms, seq = c.seq, start_ms = c.start_ms,
        start_seq = c.start_seq, floor_ms = c.floor_ms, floor_seq = c.floor_seq, size = c.size, tail = c.tail, n = c.n,
        server = c.server, unsure = c.unsure, first = c.first;
    RETURN c;
END $$;

-- Lock the clock, and begin an epoch if the dataset is new, or does not know an id or an epoch that the caller knows.
CREATE OR REPLACE FUNCTION {schema}.locked(p_ms bigint, p_seq bigint, p_epoch text, p_name text)
RETURNS {schema}.clock LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
DECLARE c clock;
BEGIN
    SELECT * INTO c FROM clock FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO clock DEFAULT VALUES ON CONFLICT DO NOTHING;
        SELECT * INTO c FROM clock FOR UPDATE;
    END IF;
    IF c.epoch = '' OR (c.ms, c.seq) < (p_ms, p_seq) OR (c.first AND p_epoch NOT IN ('', c.epoch)) THEN
        c := begin_epoch(c, p_ms, p_seq, p_epoch, p_name);
    END IF;
    RETURN c;
END $$;

-- The same for calls that only read, which need no lock.
CREATE OR REPLACE FUNCTION {schema}.check_known(p_ms bigint, p_seq bigint, p_epoch text, p_name text)
RETURNS void LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM clock WHERE epoch <> '' AND (ms, seq) >= (p_ms, p_seq) AND NOT (first AND p_epoch NOT IN ('', epoch))
    ) THEN
        PERFORM locked(p_ms, p_seq, p_epoch, p_name);
    END IF;
END $$;

-- Inform the hubs of an id: of a registration that is new, or confirmed.
CREATE OR REPLACE FUNCTION {schema}.inform(p_ms bigint, p_seq bigint, p_epoch text) RETURNS void
LANGUAGE sql AS $$ SELECT pg_notify('{channel}', format('hub %s-%s %s', p_ms, p_seq, p_epoch)) $$;

-- List a hub. p_waits: it may not acknowledge messages yet.
CREATE OR REPLACE FUNCTION {schema}.register(c {schema}.clock, p_hub text, p_salt bigint, p_waits boolean)
RETURNS {schema}.clock LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
DECLARE v_now bigint := now_ms();
BEGIN
    UPDATE hubs SET seen = v_now WHERE hub = p_hub;
    IF FOUND THEN
        RETURN c;
    END IF;
    IF v_now > c.ms THEN
        c.ms := v_now; c.seq := p_salt;
    ELSE
        c.seq := c.seq + 1 + p_salt;
    END IF;
    INSERT INTO ids VALUES (c.ms, c.seq);
    INSERT INTO hubs VALUES (
        p_hub, v_now, CASE WHEN p_waits THEN c.ms END, CASE WHEN p_waits THEN c.seq END
    );
    PERFORM inform(c.ms, c.seq, c.epoch);
    RETURN save(c);
END $$;

-- Return the id of a hub's registration while it may not acknowledge messages; else an empty text.
CREATE OR REPLACE FUNCTION {schema}.awaits(p_hub text) RETURNS text
LANGUAGE sql SET search_path = {schema}, pg_temp AS $$
    SELECT coalesce((SELECT awaits_ms || '-' || awaits_seq FROM hubs WHERE hub = p_hub), '')
$$;

-- Let a hub acknowledge messages.
CREATE OR REPLACE FUNCTION {schema}.establish(p_hub {schema}.hubs, p_epoch text) RETURNS void
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
BEGIN
    UPDATE hubs SET awaits_ms = NULL, awaits_seq = NULL WHERE hub = p_hub.hub;
    PERFORM inform(p_hub.awaits_ms, p_hub.awaits_seq, p_epoch);
END $$;

CREATE OR REPLACE FUNCTION {schema}.verify(
    p_ms bigint, p_seq bigint, p_epoch text, p_name text, p_hub text, p_salt bigint, p_grace bigint,
    p_vouched text, p_waited text, p_waiting boolean
) RETURNS TABLE (o_epoch text, o_position text, o_sure text, o_server text, o_awaits text, o_unconfirmed text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
    o clock; c clock; oldest ids; h hubs; v_now bigint; v_sure boolean := true; v_server text := server();
    v_established boolean; v_unconfirmed boolean := false; v_waits boolean := p_waiting;
BEGIN
    SELECT * INTO o FROM clock FOR UPDATE;
    c := locked(p_ms, p_seq, p_epoch, p_name);
    v_now := now_ms();
    IF p_epoch NOT IN ('', c.epoch, coalesce(o.epoch, '')) THEN
        -- It is one of those before this one, or the dataset is older than the caller.
        IF position(p_epoch IN c.former) = 0 THEN
            c := begin_epoch(c, p_ms, p_seq, p_epoch, p_name);
        END IF;
    ELSIF p_epoch = c.epoch AND NOT EXISTS (SELECT FROM ids WHERE (ms, seq) = (p_ms, p_seq)) THEN
        SELECT * INTO oldest FROM ids ORDER BY ms, seq LIMIT 1;
        IF (oldest.ms, oldest.seq) <> (c.start_ms, c.start_seq) AND (p_ms, p_seq) < (oldest.ms, oldest.seq) THEN
            v_sure := false;
        ELSE
            c := begin_epoch(c, p_ms, p_seq, p_epoch, p_name);
        END IF;
    END IF;
    IF v_server <> c.server AND c.epoch = o.epoch THEN
        c.server := v_server;
        IF c.unsure IS NULL THEN
            DELETE FROM witnesses;
        END IF;
        INSERT INTO witnesses SELECT hub FROM hubs ON CONFLICT DO NOTHING;
        c.unsure := v_now;
        IF EXISTS (SELECT FROM hubs) THEN
            c := save(c);
        ELSE
            -- Hubs that came and left without a trace in this dataset may have acknowledged more.
            c := begin_epoch(c, p_ms, p_seq, p_epoch, p_name);
        END IF;
    END IF;
    IF c.unsure IS NOT NULL AND p_vouched = '0 ' || v_server AND EXISTS (SELECT FROM witnesses WHERE hub = p_hub) THEN
        -- While the caller was cut off, a hub that it does not know may have acknowledged more.
        c := begin_epoch(c, p_ms, p_seq, p_epoch, p_name);
    END IF;
    IF c.unsure IS NOT NULL THEN
        IF v_sure AND p_vouched = '1 ' || v_server THEN
            DELETE FROM witnesses WHERE hub = p_hub;
        END IF;
        IF NOT EXISTS (SELECT FROM witnesses) THEN
            c.unsure := NULL;
            c := save(c);
        ELSIF abs(v_now - c.unsure) > p_grace THEN
            c := begin_epoch(c, p_ms, p_seq, p_epoch, p_name);
        END IF;
    END IF;
    SELECT * INTO h FROM hubs WHERE hub = p_hub;
    IF FOUND AND p_waited <> '' AND awaits(p_hub) = p_waited THEN
        PERFORM establish(h, c.epoch);
    END IF;
    v_established := EXISTS (SELECT FROM hubs WHERE hub = p_hub AND awaits_ms IS NULL);
    FOR h IN SELECT * FROM hubs WHERE hub <> p_hub ORDER BY hub LOOP
        v_waits := true;
        IF v_established AND abs(v_now - h.seen) > p_grace THEN
            -- The caller learns of all that these have acknowledged.
            DELETE FROM hubs WHERE hub = h.hub;
        ELSIF v_established AND h.awaits_ms IS NOT NULL THEN
            IF p_epoch = c.epoch AND (p_ms, p_seq) >= (h.awaits_ms, h.awaits_seq) THEN
                PERFORM establish(h, c.epoch);
            ELSE
                v_unconfirmed := true;
            END IF;
        END IF;
    END LOOP;
    c := register(c, p_hub, p_salt, v_waits);
    RETURN QUERY SELECT c.epoch, format('%s-%s', c.ms, c.seq), v_sure::int::text, v_server, awaits(p_hub),
        v_unconfirmed::int::text;
END $$;

CREATE OR REPLACE FUNCTION {schema}.publish(
    p_ms bigint, p_seq bigint, p_epoch text, p_name text, p_hub text, p_rooms bytea[], p_payloads bytea[],
    p_keeps bigint[], p_refs text[], p_salts bigint[], p_room_budget bigint, p_budget bigint, p_waiting boolean
) RETURNS TABLE (o_epoch text, o_position text, o_id text, o_again text, o_awaits text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
    c clock; r rooms; q rooms; m messages; v_now bigint; v_size bigint; v_before bigint; v_id text; v_awaits text;
BEGIN
    c := locked(p_ms, p_seq, p_epoch, p_name);
    IF NOT EXISTS (SELECT FROM hubs WHERE hub = p_hub) THEN
        c := register(c, p_hub, p_salts[1], p_waiting OR EXISTS (SELECT FROM hubs));
    END IF;
    v_awaits := awaits(p_hub);
    FOR i IN 1 .. array_length(p_payloads, 1) LOOP
        v_now := now_ms();
        IF p_refs[i] <> '' THEN
            SELECT id INTO v_id FROM refs WHERE ref = p_refs[i] AND abs(v_now - published) < {ref_time};
            IF FOUND THEN
                RETURN QUERY SELECT c.epoch, format('%s-%s', c.ms, c.seq), v_id, '1', v_awaits;
                CONTINUE;
            END IF;
        END IF;
        c.n := c.n + 1;
        v_size := octet_length(p_payloads[i]);
        v_id := '';
        m := NULL;
        m.previous_ms := 0; m.previous_seq := 0;
        IF p_keeps[i] > 0 THEN
            SELECT * INTO r FROM rooms WHERE room = p_rooms[i];
            IF FOUND THEN
                m.previous_ms := r.ms; m.previous_seq := r.seq;
                v_before := r.bytes + {room_cost};
            ELSE
                r.messages := 0; r.bytes := 0; v_before := 0;
                m.previous_ms := c.floor_ms; m.previous_seq := c.floor_seq;
            END IF;
            IF v_now > c.ms THEN
                c.ms := v_now; c.seq := p_salts[i];
            ELSE
                c.seq := c.seq + 1 + p_salts[i];
            END IF;
            IF (m.previous_ms, m.previous_seq) >= (c.ms, c.seq) THEN
                c.ms := m.previous_ms; c.seq := m.previous_seq + 1 + p_salts[i];
            END IF;
            m.ms := c.ms; m.seq := c.seq;
            v_id := format('%s-%s', c.ms, c.seq);
            INSERT INTO ids VALUES (c.ms, c.seq);
        END IF;
        INSERT INTO messages VALUES (
            c.n, p_rooms[i], p_keeps[i] > 0, m.ms, m.seq, m.previous_ms, m.previous_seq, c.epoch, p_payloads[i], v_now
        );
        IF p_keeps[i] > 0 THEN
            r.messages := r.messages + 1;
            r.bytes := r.bytes + v_size + {entry_cost};
            WHILE r.messages > 0 AND (r.messages > p_keeps[i] OR r.bytes > p_room_budget) LOOP
                UPDATE messages SET kept = false WHERE n = (
                    SELECT n FROM messages WHERE room = p_rooms[i] AND kept ORDER BY ms, seq LIMIT 1
                ) RETURNING * INTO m;
                r.messages := r.messages - 1;
                r.bytes := greatest(0, r.bytes - coalesce(octet_length(m.payload), 0) - {entry_cost});
                c.tail := c.tail + coalesce(octet_length(m.payload), 0);
            END LOOP;
            IF r.messages = 0 THEN
                r.bytes := 0;
            END IF;
            INSERT INTO rooms VALUES (p_rooms[i], c.ms, c.seq, r.messages, r.bytes) ON CONFLICT (room) DO UPDATE
                SET ms = EXCLUDED.ms, seq = EXCLUDED.seq, messages = EXCLUDED.messages, bytes = EXCLUDED.bytes;
            c.size := c.size - v_before + r.bytes + {room_cost};
            -- Rooms that were quiet for longest give way: beyond the budget, or when their history has expired.
            FOR step IN 1 .. 64 LOOP
                SELECT * INTO q FROM rooms WHERE room <> p_rooms[i] ORDER BY ms, room LIMIT 1;
                EXIT WHEN NOT FOUND OR (c.size <= p_budget AND q.ms > c.ms - {ttl});
                WITH dropped AS (
                    UPDATE messages SET kept = false WHERE room = q.room AND kept RETURNING octet_length(payload) AS size
                ) SELECT c.tail + coalesce(sum(size), 0) INTO c.tail FROM dropped;
                DELETE FROM rooms WHERE room = q.room;
                c.size := greatest(0, c.size - q.bytes - {room_cost});
                IF (c.floor_ms, c.floor_seq) < (q.ms, q.seq) THEN
                    c.floor_ms := q.ms; c.floor_seq := q.seq;
                END IF;
            END LOOP;
        ELSE
            c.tail := c.tail + v_size;
        END IF;
        IF p_refs[i] <> '' THEN
            INSERT INTO refs (ref, id, published) VALUES (p_refs[i], v_id, v_now)
                ON CONFLICT (ref) DO UPDATE SET id = EXCLUDED.id, published = EXCLUDED.published;
        END IF;
        PERFORM pg_notify('{channel}', format('message %s %s %s', c.n, v_size, room_key(p_rooms[i])));
        RETURN QUERY SELECT c.epoch, format('%s-%s', c.ms, c.seq), v_id, '0', v_awaits;
    END LOOP;
    c := tidied(c);
END $$;

-- The hash of a room, by which notifications name it; all hubs have a message without a room.
CREATE OR REPLACE FUNCTION {schema}.room_key(p_room bytea) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(left(encode(sha256(p_room), 'hex'), 32), '')
$$;

-- Remove what has expired, a bounded number of rows, and save the clock.
CREATE OR REPLACE FUNCTION {schema}.tidied(c {schema}.clock) RETURNS {schema}.clock
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
DECLARE v_now bigint := now_ms(); m messages; v_last bigint;
BEGIN
    FOR step IN 1 .. 512 LOOP
        SELECT * INTO m FROM messages WHERE NOT kept ORDER BY n LIMIT 1;
        EXIT WHEN NOT FOUND OR (c.tail <= {max_tail} AND abs(v_now - m.published) <= {tail});
        DELETE FROM messages WHERE n = m.n;
        c.tail := greatest(0, c.tail - octet_length(m.payload));
    END LOOP;
    SELECT max(n) INTO v_last FROM refs;
    DELETE FROM refs WHERE n IN (SELECT n FROM refs ORDER BY n LIMIT 512)
        AND (n <= v_last - {max_refs} OR abs(v_now - published) >= {ref_time});
    IF c.n % 64 = 0 THEN
        DELETE FROM ids WHERE (ms, seq) <= (SELECT ms, seq FROM ids ORDER BY ms DESC, seq DESC OFFSET {max_ids} LIMIT 1);
    END IF;
    RETURN save(c);
END $$;

CREATE OR REPLACE FUNCTION {schema}.fetch(p_numbers bigint[])
RETURNS TABLE (o_n text, o_room bytea, o_id text, o_previous text, o_epoch text, o_payload bytea)
LANGUAGE sql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    SELECT n::text, room, CASE WHEN ms IS NULL THEN '' ELSE format('%s-%s', ms, seq) END,
        format('%s-%s', previous_ms, previous_seq), epoch, payload
    FROM messages WHERE n = ANY (p_numbers) ORDER BY messages.n
$$;

-- The number of the latest message: a new subscription begins after it.
CREATE OR REPLACE FUNCTION {schema}.latest() RETURNS TABLE (o_epoch text, o_n text)
LANGUAGE sql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    SELECT coalesce(max(epoch), ''), coalesce(max(n), 0)::text FROM clock
$$;

CREATE OR REPLACE FUNCTION {schema}.read(
    p_ms bigint, p_seq bigint, p_epoch text, p_name text, p_room bytea, p_after_ms bigint, p_after_seq bigint,
    p_count bigint, p_size bigint
) RETURNS TABLE (
    o_epoch text, o_position text, o_start text, o_whole text, o_exact text, o_more text, o_id text, o_payload bytea
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
    PERFORM check_known(p_ms, p_seq, p_epoch, p_name);
    -- One statement sees one state of all tables.
    RETURN QUERY WITH found AS (
        SELECT m.*, row_number() OVER (ORDER BY n) AS number, sum(octet_length(payload)) OVER (ORDER BY n) AS total
        FROM (
            SELECT * FROM messages WHERE room = p_room AND kept AND (ms, seq) > (p_after_ms, p_after_seq)
            ORDER BY ms, seq LIMIT p_count
        ) AS m
    ), facts AS (
        SELECT c.*, (SELECT count(*) FROM found) AS entries,
            coalesce(f.previous_ms, r.ms, c.floor_ms) AS before_ms, coalesce(f.previous_seq, r.seq, c.floor_seq) AS before_seq
        FROM clock AS c LEFT JOIN rooms AS r ON r.room = p_room LEFT JOIN found AS f ON f.number = 1
    ), judged AS (
        SELECT *, (p_after_ms, p_after_seq) >= (before_ms, before_seq) AS whole FROM facts
    )
    SELECT j.epoch, format('%s-%s', j.ms, j.seq), format('%s-%s', j.start_ms, j.start_seq), j.whole::int::text,
        (j.unsure IS NULL AND CASE
            -- All is here if the room's first message follows the beginning of the first epoch, or if there was none.
            WHEN (p_after_ms, p_after_seq) = (0, 0) THEN
                j.first AND (j.before_ms, j.before_seq) = (j.start_ms, j.start_seq)
            ELSE j.whole AND (p_after_ms, p_after_seq) > (j.start_ms, j.start_seq) AND (
                (p_after_ms, p_after_seq) = (j.before_ms, j.before_seq) OR EXISTS (
                    SELECT FROM messages AS m WHERE room = p_room AND kept AND (m.ms, m.seq) = (p_after_ms, p_after_seq)
                )
            )
        END)::int::text,
        (j.entries = p_count OR EXISTS (SELECT FROM found WHERE number > 1 AND total > p_size))::int::text,
        CASE WHEN f.n IS NULL THEN '' ELSE format('%s-%s', f.ms, f.seq) END, f.payload
    FROM judged AS j LEFT JOIN found AS f ON f.number = 1 OR f.total <= p_size ORDER BY f.n;
END $$;

CREATE OR REPLACE FUNCTION {schema}.sweep(
    p_ms bigint, p_seq bigint, p_epoch text, p_name text, p_rooms bytea[], p_after_ms bigint[], p_after_seq bigint[]
) RETURNS TABLE (o_epoch text, o_position text, o_behind text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
    PERFORM check_known(p_ms, p_seq, p_epoch, p_name);
    RETURN QUERY SELECT c.epoch, format('%s-%s', c.ms, c.seq), coalesce(string_agg((a.i - 1)::text, ' ' ORDER BY a.i)
        FILTER (WHERE (a.ms, a.seq) < (coalesce(r.ms, c.floor_ms), coalesce(r.seq, c.floor_seq))), '')
    FROM clock AS c LEFT JOIN unnest(p_rooms, p_after_ms, p_after_seq) WITH ORDINALITY AS a (room, ms, seq, i) ON true
        LEFT JOIN rooms AS r ON r.room = a.room
    GROUP BY c.epoch, c.ms, c.seq;
END $$;

CREATE OR REPLACE FUNCTION {schema}.enter(p_lease text, p_room bytea, p_members text[], p_listings bytea[])
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    INSERT INTO members (room, lease, member, listing)
        SELECT p_room, p_lease, member, listing FROM unnest(p_members, p_listings) AS a (member, listing)
    ON CONFLICT (room, lease, member) DO UPDATE SET listing = EXCLUDED.listing
$$;

CREATE OR REPLACE FUNCTION {schema}.leave(p_lease text, p_room bytea, p_member text)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    DELETE FROM members WHERE room = p_room AND lease = p_lease AND member = p_member
$$;

CREATE OR REPLACE FUNCTION {schema}.announce(p_room bytea)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    SELECT pg_notify('{channel}', format('members %s', room_key(p_room)))
$$;

-- Return whether the lease was still there.
CREATE OR REPLACE FUNCTION {schema}.extend(p_lease text, p_time bigint)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE v_now bigint := now_ms(); v_alive boolean;
BEGIN
    SELECT until > v_now INTO v_alive FROM leases WHERE lease = p_lease;
    INSERT INTO leases VALUES (p_lease, v_now + p_time) ON CONFLICT (lease) DO UPDATE SET until = EXCLUDED.until;
    WITH ended AS (DELETE FROM leases WHERE until < v_now - p_time RETURNING lease)
        DELETE FROM members WHERE lease IN (SELECT lease FROM ended);
    RETURN coalesce(v_alive, false)::int::text;
END $$;

CREATE OR REPLACE FUNCTION {schema}.forget(p_leases text[], p_hub text)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    DELETE FROM members WHERE lease = ANY (p_leases);
    DELETE FROM leases WHERE lease = ANY (p_leases);
    DELETE FROM hubs WHERE hub = p_hub;
$$;

-- A page begins after the number of the page before: so none is left out when members of that page leave meanwhile.
CREATE OR REPLACE FUNCTION {schema}.listings(p_room bytea, p_after bigint, p_count bigint)
RETURNS TABLE (o_n text, o_total text, o_listing bytea)
LANGUAGE sql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    WITH present AS (
        SELECT n, listing FROM members JOIN leases USING (lease) WHERE room = p_room AND until > now_ms()
    )
    SELECT n::text, (SELECT count(*) FROM present)::text, listing FROM present
    WHERE n > p_after ORDER BY present.n LIMIT p_count
$$;

CREATE OR REPLACE FUNCTION {schema}.inbox_filled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{channel}', 'inbox');
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER inbox_filled AFTER INSERT ON {schema}.inbox
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.inbox_filled();

CREATE OR REPLACE FUNCTION {schema}.inbox_entries(p_count bigint)
RETURNS TABLE (o_n text, o_room text, o_kind text, o_data bytea, o_keep text, o_ref text)
LANGUAGE sql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    SELECT n::text, room, CASE WHEN data IS NULL THEN 'binary' ELSE 'text' END,
        coalesce(binary_data, convert_to(data, 'UTF8')), keep::int::text, ref
    FROM inbox ORDER BY inbox.n LIMIT p_count
$$;

CREATE OR REPLACE FUNCTION {schema}.inbox_remove(p_n bigint)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$ DELETE FROM inbox WHERE n = p_n $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC;
