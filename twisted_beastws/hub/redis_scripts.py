"""The scripts that run inside Redis, and their answers as values.

Each script runs in one step. All keys begin with ``PREFIX:DATABASE:``.

- ``clock``, a hash: ``epoch``, the dataset's name, and ``left``, the names of those before; ``ms`` and ``seq``, the
  latest id; ``start``, the latest id when the epoch began; ``first``, 1 if the epoch began in an empty database, and no
  hub knew of an earlier dataset; ``floor``, the latest id of the rooms whose records were removed; ``size``, bytes of
  all histories; ``refs`` and ``refs_since``, a generation of idempotency keys and its age.
- ``ids``, a stream without content: the latest ids that the dataset gave out, `MAX_IDS` of them.
- ``history:ROOM``, a stream: a room's messages. Of each, ``m`` is the payload and ``p`` the id of the room's message
  before it, so that a reader sees whether one is missing.
- ``records``, a hash: for each room with a history, its latest id and its history's bytes.
- ``ages``, a sorted set: the same rooms by the time of their latest message.
- ``refs:0`` and ``refs:1``, hashes: the ids of messages by their idempotency keys, in two generations.
- ``here:ROOM``, a hash: the names of a room's members, by hub and member.
- ``hub:NAME``: a hub's lease. The members of a hub without one are not listed.
- ``hubs``, a hash: the hubs that may have acknowledged messages, and when each confirmed last that it is there. After a
  space, the id of its registration, if the hub still waits and acknowledges nothing: see `linked_registration`.
- ``witnesses``, a hash: of those, the hubs that have not confirmed the dataset since the server changed.

Has the dataset lost acknowledged messages? Two checks find out.

*A hub knows more.* A hub passes the latest id that it knows with each call. If the dataset's own is older, the dataset
is not the one that gave out that id: Redis lost it, or restored an older one. The same is true if the dataset does not
have the id when the hub returns, and if the hub knows another epoch than the dataset's first one.

*The server changed*, which the ``run_id`` and ``master_replid`` of INFO show: Redis restarted, or a replica took over.
Then messages can be missing that only one hub knew, so each hub in ``hubs`` has to return and confirm the dataset.
Until then ``clock`` has ``unsure``, the time of the change, and no part of a history counts as exact. If all hubs have
confirmed it within `GRACE`, nothing is lost. A new hub is given an id, which the other hubs learn: so they notice a
dataset from before that hub was registered. It acknowledges nothing before one of them has learned the id, or before
the leases of all of them have ended: a hub without a lease cannot confirm the dataset.

If a check fails, the script begins a new epoch, in which all ids are higher than every id that the hub knows.
"""

from __future__ import annotations

from twisted_beastws.hub.backplane import MAX_REFS, REF_TIME

TTL = 86400
"""Seconds that a room's history is kept after its last message: a day."""

ENTRY_COST = 128
"""Bytes that an entry of a stream costs beside its payload: the ids and the stream's own, measured."""

ROOM_COST = 1024
"""Bytes that a room costs beside its entries: a stream of one entry, its record and its age, measured."""

MAX_IDS = 65536
"""Ids of the latest messages that a dataset keeps, by which a hub that returns knows it again. About 1 MB."""

SALT = 1 << 20
"""Ids leave random gaps below this, so that two datasets give out the same id once in a million times."""

# What each script begins with. KEYS: clock, ids. ARGV: the latest id that the caller knows and the epoch that it knows,
# a name for a new epoch.
CLOCK = """
local function parse(id)
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    return tonumber(ms), tonumber(seq)
end
local function less(a_ms, a_seq, b_ms, b_seq)
    return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end
local function format(ms, seq)
    return string.format('%.0f-%.0f', ms, seq)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local clock = redis.call('HMGET', KEYS[1], 'epoch', 'ms', 'seq', 'start', 'floor', 'size', 'refs', 'refs_since',
    'left', 'server', 'unsure', 'first')
local epoch, ms, seq, start, floor = clock[1], tonumber(clock[2]), tonumber(clock[3]), clock[4], clock[5]
local known_id, known_epoch = string.match(ARGV[1], '^(%S+) ?(%S*)$')
local known_ms, known_seq = parse(known_id)
local left = clock[9] or ''
local unsure = tonumber(clock[11])
local first = clock[12] == '1'
local function server()
    local info = redis.call('INFO', 'server') .. redis.call('INFO', 'replication')
    return string.match(info, 'run_id:(%w*)') .. ' ' .. string.match(info, 'master_replid:(%w*)')
end
local function begin_epoch()
    first = not epoch and redis.call('EXISTS', KEYS[2]) == 0 and ARGV[1] == '0-0 '
    if not (ms and seq) or less(ms, seq, known_ms, known_seq) then
        ms, seq = known_ms, known_seq
    end
    if now > ms then
        ms, seq = now, 0
    end
    for _, name in ipairs({epoch or '', known_epoch}) do
        if name ~= '' and not string.find(left, name, 1, true) then
            left = string.sub(left .. ' ' .. name, -MAX_LEFT)
        end
    end
    epoch, start, floor = ARGV[2], format(ms, seq), format(ms, seq)
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'ms', ms, 'seq', string.format('%.0f', seq),
        'start', start, 'floor', floor, 'left', left, 'unsure', '',
        'server', server(), 'first', first and '1' or '')
    unsure = nil
    redis.call('DEL', KEYS[2])
    redis.call('XADD', KEYS[2], start, 'e', '')
end
local foreign = first and known_epoch ~= '' and known_epoch ~= epoch
if not (epoch and ms and seq) or less(ms, seq, known_ms, known_seq) or foreign then
    begin_epoch()
end
""".replace("MAX_LEFT", str(8 * 9))

# Notes a hub that may acknowledge messages. KEYS[3]: hubs.
REGISTER = f"""
local function inform(channel, id)
    redis.call('PUBLISH', channel, id .. ' 0-0 ' .. epoch .. '\\n')
end
local function register(hub, channel, salt, waits)
    local listed = redis.call('HGET', KEYS[3], hub)
    if listed then
        local awaited = string.match(listed, ' .*$') or ''
        redis.call('HSET', KEYS[3], hub, string.format('%.0f', now) .. awaited)
        return string.sub(awaited, 2)
    end
    if now > ms then
        ms, seq = now, salt
    else
        seq = seq + 1 + salt
    end
    local id = format(ms, seq)
    redis.call('HSET', KEYS[1], 'ms', ms, 'seq', string.format('%.0f', seq))
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', {MAX_IDS}, id, 'e', '')
    redis.call('HSET', KEYS[3], hub, string.format('%.0f', now) .. (waits and ' ' .. id or ''))
    inform(channel, id)
    return waits and id or ''
end
"""

# KEYS: clock, ids, hubs, witnesses.
# ARGV: known, name, hub, channel to all hubs, salt, GRACE, vouched, waited, waiting.
POSITION = f"""{CLOCK}{REGISTER}
local hub, channel, grace, vouched = ARGV[3], ARGV[4], ARGV[6] * 1000, ARGV[7]
local sure, confirms = 1, true
if known_epoch ~= '' and known_epoch ~= epoch and known_epoch ~= clock[1] then
    -- It is one of those before this one, or the dataset is older than the caller.
    if not string.find(left, known_epoch, 1, true) then
        begin_epoch()
    end
elseif known_epoch == epoch and #redis.call('XRANGE', KEYS[2], known_id, known_id) == 0 then
    local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
    if oldest and oldest[1] ~= start and less(known_ms, known_seq, parse(oldest[1])) then
        sure, confirms = 0, false
    else
        begin_epoch()
    end
end
local hubs = redis.call('HGETALL', KEYS[3])
local present = server()
if present ~= clock[10] and epoch == clock[1] then
    redis.call('HSET', KEYS[1], 'server', present)
    -- A dataset that an earlier version wrote has none.
    if clock[10] then
        if not unsure then
            redis.call('DEL', KEYS[4])
        end
        for n = 1, #hubs, 2 do
            redis.call('HSET', KEYS[4], hubs[n], '')
        end
        unsure = now
        redis.call('HSET', KEYS[1], 'unsure', now)
        if #hubs == 0 then
            -- Hubs that came and left without a trace in this dataset may have acknowledged more.
            begin_epoch()
        end
    end
end
if unsure and vouched == '0 ' .. present and redis.call('HEXISTS', KEYS[4], hub) == 1 then
    -- While the caller was cut off, a hub that it does not know may have acknowledged more.
    begin_epoch()
end
if unsure then
    if confirms and vouched == '1 ' .. present then
        redis.call('HDEL', KEYS[4], hub)
    end
    if redis.call('HLEN', KEYS[4]) == 0 then
        redis.call('HSET', KEYS[1], 'unsure', '')
    elseif math.abs(now - unsure) > grace then
        begin_epoch()
    end
end
local function establish(other, seen, id)
    redis.call('HSET', KEYS[3], other, seen)
    inform(channel, id)
end
local listed = redis.call('HGET', KEYS[3], hub)
local awaited = listed and string.match(listed, ' (%S+)$')
if awaited and awaited == ARGV[8] then
    establish(hub, string.match(listed, '^%S+'), awaited)
    awaited = nil
end
local established = listed and not awaited
local unconfirmed, waits = 0, ARGV[9] == '1'
for n = 1, #hubs, 2 do
    local other = hubs[n]
    local seen, theirs = string.match(hubs[n + 1], '^(%S+) ?(%S*)$')
    if other ~= hub then
        waits = true
        if established and math.abs(now - seen) > grace then
            -- The caller learns of all that these have acknowledged.
            redis.call('HDEL', KEYS[3], other)
        elseif established and theirs ~= '' then
            local their_ms, their_seq = parse(theirs)
            if known_epoch == epoch and not less(known_ms, known_seq, their_ms, their_seq) then
                establish(other, seen, theirs)
            else
                unconfirmed = 1
            end
        end
    end
end
local awaits = register(hub, channel, tonumber(ARGV[5]), waits)
return {{epoch, format(ms, seq), sure, present, awaits, unconfirmed}}
"""

# KEYS: clock, ids, hubs, history, records, ages, refs:0, refs:1.
# ARGV: known, name, payload, channel, keep, room, room's budget, all rooms' budget, salt, ref, prefix of histories,
# hub, channel to all hubs, waiting.
PUBLISH = f"""{CLOCK}{REGISTER}
local awaits = redis.call('HGET', KEYS[3], ARGV[12])
if awaits then
    awaits = string.match(awaits, ' (%S+)$') or ''
else
    local waits = ARGV[14] == '1' or redis.call('HLEN', KEYS[3]) > 0
    awaits = register(ARGV[12], ARGV[13], tonumber(ARGV[9]), waits)
end
local payload, channel, keep, room, ref = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[10]
local newest, oldest
if ref ~= '' then
    newest = tonumber(clock[7]) or 0
    oldest = 1 - newest
    local known = redis.call('HGET', KEYS[7 + newest], ref) or redis.call('HGET', KEYS[7 + oldest], ref)
    if known then
        return {{epoch, format(ms, seq), known, 1, awaits}}
    end
end
local id, previous = '', '0-0'
local size = tonumber(clock[6]) or 0
if keep > 0 then
    local record, bytes, latest = redis.call('HGET', KEYS[5], room), 0, nil
    if record then
        latest, bytes = string.match(record, '^(%S+) (%d+)$')
        bytes = tonumber(bytes)
    else
        latest = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
        latest = latest and latest[1]
    end
    previous = latest or floor
    if now > ms then
        ms, seq = now, tonumber(ARGV[9])
    else
        seq = seq + 1 + tonumber(ARGV[9])
    end
    local last_ms, last_seq = parse(previous)
    if not less(last_ms, last_seq, ms, seq) then
        ms, seq = last_ms, last_seq + 1 + tonumber(ARGV[9])
    end
    id = format(ms, seq)
    redis.call('HSET', KEYS[1], 'ms', ms, 'seq', string.format('%.0f', seq))
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', {MAX_IDS}, id, 'e', '')
    local length = redis.call('XLEN', KEYS[4])
    local before = record and bytes + {ROOM_COST} or 0
    if length == 0 then
        bytes = 0
    end
    redis.call('XADD', KEYS[4], id, 'm', payload, 'p', previous)
    length, bytes = length + 1, bytes + #payload + {ENTRY_COST}
    while length > 0 and (length > keep or bytes > tonumber(ARGV[7])) do
        local first = redis.call('XRANGE', KEYS[4], '-', '+', 'COUNT', 1)[1]
        length = length - 1
        bytes = math.max(0, bytes - #first[2][2] - {ENTRY_COST})
        redis.call('XTRIM', KEYS[4], 'MAXLEN', length)
    end
    if length == 0 then
        bytes = 0
    end
    redis.call('EXPIRE', KEYS[4], {TTL})
    redis.call('HSET', KEYS[5], room, id .. ' ' .. string.format('%.0f', bytes))
    redis.call('ZADD', KEYS[6], ms, room)
    size = size - before + bytes + {ROOM_COST}
    -- Rooms that were quiet for longest give way: beyond the budget, or when their history has expired.
    for _ = 1, 64 do
        local quiet = redis.call('ZRANGE', KEYS[6], 0, 1, 'WITHSCORES')
        if quiet[1] == room then
            quiet = {{quiet[3], quiet[4]}}
        end
        if not quiet[1] or (size <= tonumber(ARGV[8]) and tonumber(quiet[2]) > ms - {TTL}000) then
            break
        end
        local other, held = string.match(redis.call('HGET', KEYS[5], quiet[1]) or '0-0 0', '^(%S+) (%d+)$')
        redis.call('DEL', ARGV[11] .. quiet[1])
        redis.call('HDEL', KEYS[5], quiet[1])
        redis.call('ZREM', KEYS[6], quiet[1])
        size = math.max(0, size - tonumber(held) - {ROOM_COST})
        local floor_ms, floor_seq = parse(floor)
        if less(floor_ms, floor_seq, parse(other)) then
            floor = other
        end
    end
    redis.call('HSET', KEYS[1], 'size', string.format('%.0f', size), 'floor', floor)
end
if ref ~= '' then
    local since = tonumber(clock[8]) or 0
    if math.abs(now - since) > {REF_TIME}000 or redis.call('HLEN', KEYS[7 + newest]) >= {MAX_REFS} then
        newest = oldest
        redis.call('DEL', KEYS[7 + newest])
        redis.call('HSET', KEYS[1], 'refs', newest, 'refs_since', now)
    end
    redis.call('HSET', KEYS[7 + newest], ref, id)
end
redis.call('PUBLISH', channel, id .. ' ' .. previous .. ' ' .. epoch .. '\\n' .. payload)
return {{epoch, format(ms, seq), id, 0, awaits}}
"""

# KEYS: clock, ids, history, records. ARGV: known, name, after, count, size, room.
READ = f"""{CLOCK}
local after_ms, after_seq = parse(ARGV[3])
local found = redis.call('XRANGE', KEYS[3], '(' .. ARGV[3], '+', 'COUNT', ARGV[4])
local record = redis.call('HGET', KEYS[4], ARGV[6])
local latest = record and string.match(record, '^%S+')
local previous = latest or floor
if found[1] then
    previous = found[1][2][4] or floor
end
local whole = not less(after_ms, after_seq, parse(previous))
local exact = whole and (previous == ARGV[3] or #redis.call('XRANGE', KEYS[3], ARGV[3], ARGV[3]) == 1)
local start_ms, start_seq = parse(start)
if after_ms == 0 and after_seq == 0 then
    -- All is here if the room's first message follows the beginning of the first epoch, or if there was none.
    exact = first and previous == start
elseif not less(start_ms, start_seq, after_ms, after_seq) then
    exact = false
end
exact = exact and not unsure
local more, size, part = #found == tonumber(ARGV[4]) and 1 or 0, 0, {{}}
for n, entry in ipairs(found) do
    size = size + #entry[2][2]
    if n > 1 and size > tonumber(ARGV[5]) then
        more = 1
        break
    end
    part[#part + 1] = entry[1]
    part[#part + 1] = entry[2][2]
end
return {{epoch, format(ms, seq), start, whole and 1 or 0, exact and 1 or 0, more, part}}
"""

# KEYS: clock, ids, records. ARGV: known, name, then rooms, each with the id that its reader has.
SWEEP = f"""{CLOCK}
local behind = {{}}
for n = 3, #ARGV, 2 do
    local record = redis.call('HGET', KEYS[3], ARGV[n])
    local after_ms, after_seq = parse(ARGV[n + 1])
    if less(after_ms, after_seq, parse(record and string.match(record, '^%S+') or floor)) then
        behind[#behind + 1] = (n - 3) / 2
    end
end
return {{epoch, format(ms, seq), behind}}
"""

# KEYS: here. ARGV: prefix of leases, cursor, count.
ROSTER = """
local alive, names = {}, {}
local page = redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3])
local fields = page[2]
for n = 1, #fields, 2 do
    local hub = string.match(fields[n], '^[^:]*')
    if alive[hub] == nil then
        alive[hub] = redis.call('EXISTS', ARGV[1] .. hub) == 1
    end
    if alive[hub] then
        names[#names + 1] = fields[n + 1]
    else
        redis.call('HDEL', KEYS[1], fields[n])
    end
end
return {page[1], redis.call('HLEN', KEYS[1]), names}
"""

# KEYS: hashes of names. ARGV: seconds.
KEEP = """
for n = 1, #KEYS do
    redis.call('EXPIRE', KEYS[n], ARGV[1])
end
return #KEYS
"""
