"""The Lua scripts by which the tree of a catalogue changes.

All are safe to send twice, which a client does after a lost connection: a script finds its token
and knows that it ran before. A script that fails half-way is not rolled back, so all write first
with a command that a full server refuses. A commit that only removes items removes first: a full
server then accepts the rest, so that one can make room.

A deleted catalogue leaves a tombstone in its head for a day. Every script that writes permanent
keys checks for it, so that a process that does not know of the deletion writes nothing.
"""

from tree.redis.script import TOMBSTONE, Script

# Removes first: a full server then accepts what it writes.
MARK_DELETED = Script(
    f"""
redis.call('DEL', head)
redis.call('HSET', head, '{TOMBSTONE}', 1)
redis.call('EXPIRE', head, seconds)
""",
    keys=("head",),
    args=("seconds",),  # that the tombstone stays
)

# Returns false when the base is not the newest version, another process has the commit lock, or an
# item was staged after its record was read; or else the edits and the versions since the last
# snapshot.
COMMIT = Script(
    """
local known = redis.call('HMGET', head, 'token', 'edits', 'snapshot')
local edits_since = known[2]
if known[1] ~= token then
    if (known[1] or '') ~= base then return false end
    local now = redis.call('TIME')
    local lock = redis.call('HMGET', head, 'hold', 'held_until')
    if lock[1] and lock[1] ~= lock_token and tonumber(lock[2]) > tonumber(now[1]) then
        return false
    end
    if read_seq ~= '' then
        for _, id in ipairs(leaving) do
            if tonumber(redis.call('HGET', staged, id) or 0) > tonumber(read_seq) then
                return false
            end
        end
    end
    if #written == 0 then
        for _, key in ipairs(removed) do redis.call('DEL', key) end
    end
    redis.call('XADD', log, version .. '-0', 'edits', edits, 'token', token, 'after', base)
    for i, key in ipairs(written) do redis.call('SET', key, records[i]) end
    for _, key in ipairs(removed) do redis.call('DEL', key) end
    for _, id in ipairs(leaving) do redis.call('HDEL', staged, id) end
    for _, id in ipairs(placed) do
        if tonumber(redis.call('HGET', staged, id) or 0) <= tonumber(staging_seq) then
            redis.call('HDEL', staged, id)
        end
    end
    edits_since = redis.call('HINCRBY', head, 'edits', edit_count)
    redis.call('HSET', head, 'version', version, 'token', token,
        'at', now[1] .. string.format('%06d', now[2]))
    if have_lines == '1' then redis.call('HSET', head, 'lines', 1) end
end
return {tonumber(edits_since), tonumber(version) - tonumber(known[3])}
""",
    keys=("head", "log", "staged", "written*", "removed*"),  # the lists: of item records
    args=(
        "base",  # the token of the version that the edits were planned for
        "token",  # of the new version
        "version",
        "edits",
        "edit_count",
        "staging_seq",  # the newest staging number that was read
        "lock_token",  # of the commit lock, or ''
        "have_lines",  # 1 if items get a line
        "read_seq",  # the newest staging number before records were read to write these, or ''
        "records*",  # the content of those that are written
        "leaving*",  # ids that leave the staging area
        "placed*",  # ids that leave it unless they were staged again
    ),
    refuses_deleted=True,
)

# Returns 1; 0 when another generation or version is in place; -1 when the upload is not there.
PUBLISH_SNAPSHOT = Script(
    """
local known = redis.call('HMGET', head, 'generation', 'token')
if known[1] == generation then return 1 end
if (known[1] or '') ~= generation_before then return 0 end
if base ~= '*' and (known[2] or '') ~= base then return 0 end
if redis.call('EXISTS', snapshot, space) < 2 then return -1 end
redis.call('HSET', head, 'generation', generation, 'space', fingerprint, 'snapshot', version,
    'edits', 0, 'versions', versions)
if token ~= '' then
    local now = redis.call('TIME')
    redis.call('HSET', head, 'version', version, 'token', token,
        'at', now[1] .. string.format('%06d', now[2]))
    redis.call('HDEL', head, 'hold', 'held_until')
end
if edits_token ~= '' then
    local later = string.format('%d', version + 1)
    redis.call('XADD', log, later .. '-0', 'edits', edits, 'token', edits_token, 'after', token)
    redis.call('HSET', head, 'version', later, 'token', edits_token)
end
for _, key in ipairs(unneeded) do redis.call('EXPIRE', key, leave_s) end
redis.call('PERSIST', snapshot)
redis.call('PERSIST', space)
redis.call('XTRIM', log, 'MINID', oldest .. '-0')
return 1
""",
    keys=("head", "log", "snapshot", "space", "unneeded*"),
    args=(
        "generation_before",  # the one in place
        "base",  # the token of the version that it continues, or '*' for any
        "generation",
        "fingerprint",  # of its space
        "version",
        "token",  # of its version, or '' to leave the head's version
        "oldest",  # log entry to keep
        "leave_s",  # seconds that unneeded snapshots stay for those who read them
        "versions",  # that are kept, this one first
        "edits",  # that follow the snapshot at once, or ''
        "edits_token",  # of the version that they lead to, or ''
    ),
    refuses_deleted=True,
)

# Returns 0, and writes nothing, when another checkpoint is there; -1 when lines of items may have
# been set after `lines_of`.
STAGE = Script(
    """
if expects == '1' then
    local found = redis.call('GET', checkpoint) or ''
    if found ~= expected and found ~= content then return 0 end
end
if lines_of ~= '' then
    local known = redis.call('HMGET', head, 'version', 'lines')
    if known[1] ~= lines_of and (have_lines == '1' or known[2]) then return -1 end
end
local staging_seq = redis.call('HINCRBY', head, 'staged', 1)
for i, key in ipairs(written) do
    redis.call('SET', key, records[i])
    redis.call('HSET', staged, ids[i], staging_seq)
end
if content ~= '' then redis.call('SET', checkpoint, content, 'EX', checkpoint_s) end
return 1
""",
    keys=("head", "staged", "checkpoint", "written*"),
    args=(
        "expects",  # 1 if the checkpoint has to be the expected one
        "expected",
        "content",  # of the new checkpoint, or '' to leave it
        "checkpoint_s",  # seconds that it stays
        "lines_of",  # the version in which the items had the lines that they keep, or ''
        "have_lines",  # 1 if any item has a line in that version
        "records*",
        "ids*",
    ),
    refuses_deleted=True,
)

UNSTAGE = Script(
    """
for _, id in ipairs(ids) do
    if tonumber(redis.call('HGET', staged, id) or 0) <= tonumber(staging_seq) then
        redis.call('HDEL', staged, id)
    end
end
""",
    keys=("staged",),
    args=(
        "staging_seq",  # the newest staging number that was read
        "ids*",  # that leave unless they were staged again since
    ),
)

# Returns 0 while another process has the lock.
LOCK = Script(
    """
local now = tonumber(redis.call('TIME')[1])
local lock = redis.call('HMGET', head, 'hold', 'held_until')
if lock[1] and lock[1] ~= token and tonumber(lock[2]) > now then return 0 end
if seconds == '0' then
    redis.call('HDEL', head, 'hold', 'held_until')
else
    redis.call('HSET', head, 'hold', token, 'held_until', now + seconds)
end
return 1
""",
    keys=("head",),
    args=(
        "token",  # of the one who asks
        "seconds",  # that the lock lasts at most, or 0 to unlock
    ),
    refuses_deleted=True,
)

# Returns 0 while another process has it, or when another has asked since one's own last.
BULK_WRITE_LEASE = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', lease, 'owner', 'until', 'asked', 'asked_until')
local mine = known[1] == owner
if lasts_ms == '0' then
    if mine then redis.call('HDEL', lease, 'until') end
    return 1
end
local free = not known[2] or tonumber(known[2]) <= now
local others = known[3] and known[3] ~= owner and tonumber(known[4]) > now
local given = free and not (mine and others)
if given then
    redis.call('HSET', lease, 'owner', owner, 'until', now + lasts_ms)
    if known[3] == owner then redis.call('HDEL', lease, 'asked') end
elseif not mine then
    redis.call('HSET', lease, 'asked', owner, 'asked_until', now + asked_ms)
end
redis.call('PEXPIRE', lease, lasts_ms * 2)
return given and 1 or 0
""",
    keys=("lease",),
    args=(
        "owner",  # who asks
        "lasts_ms",  # at most, or 0 to give it back
        "asked_ms",  # that a process which asked in vain is remembered
    ),
)
