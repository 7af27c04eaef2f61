"""The Lua scripts by which a catalogue changes.

All are safe to send twice, which a client does after a lost connection: the token that a script
brings tells it that it ran before. All write first with a command that a full server refuses,
because a script that fails half-way is not rolled back; but a commit that only removes items
begins with removing, after which the server lets it go on: that is how one makes room.
"""

# KEYS  head, log, staged; then the records to write; then the records to remove
# ARGV  token of the base version, token and number of the new one, edits, how many they are,
#       the newest stamp of staging that was read, the hold that lets it pass or '', how many
#       records are written; then these records; how many ids leave the staging area whatever
#       their stamp; then these ids, and those that leave it unless they were staged again since
# Returns false when the base is not the newest version or somebody holds it, or else the edits
# and the versions since the last snapshot.
COMMIT = """
local head = redis.call('HMGET', KEYS[1], 'token', 'edits', 'snapshot')
if head[1] ~= ARGV[2] then
    if (head[1] or '') ~= ARGV[1] then return false end
    local now = redis.call('TIME')
    local hold = redis.call('HMGET', KEYS[1], 'hold', 'held_until')
    if hold[1] and hold[1] ~= ARGV[7] and tonumber(hold[2]) > tonumber(now[1]) then
        return false
    end
    local written = tonumber(ARGV[8])
    for i = 4 + written, #KEYS do
        if written == 0 then redis.call('DEL', KEYS[i]) end
    end
    redis.call('XADD', KEYS[2], ARGV[3] .. '-0',
        'edits', ARGV[4], 'token', ARGV[2], 'after', ARGV[1])
    for i = 1, written do redis.call('SET', KEYS[3 + i], ARGV[8 + i]) end
    for i = 4 + written, #KEYS do redis.call('DEL', KEYS[i]) end
    local leaving = 9 + written
    local surely = leaving + tonumber(ARGV[leaving])
    for i = leaving + 1, #ARGV do
        if i <= surely or tonumber(redis.call('HGET', KEYS[3], ARGV[i]) or 0) <= tonumber(ARGV[6])
        then redis.call('HDEL', KEYS[3], ARGV[i]) end
    end
    head[2] = redis.call('HINCRBY', KEYS[1], 'edits', ARGV[5])
    redis.call('HSET', KEYS[1], 'version', ARGV[3], 'token', ARGV[2],
        'at', now[1] .. string.format('%06d', now[2]))
end
return {tonumber(head[2]), tonumber(ARGV[3]) - tonumber(head[3])}
"""

# KEYS  head, log, the new snapshot, its space; then those that nobody needs any more
# ARGV  generation in place; token of the base version or '*' for any; the new generation and
#       the fingerprint of its space; its version; its token or '' to leave the head's version;
#       the oldest log entry to keep; seconds that the old snapshots stay for those who read them;
#       the versions that are kept, this one first; the edits that follow the snapshot at once,
#       and the token of the version that they lead to, or '' and ''
# Returns 1; 0 when another generation or version is in place; -1 when the upload is not there.
FLIP = """
local head = redis.call('HMGET', KEYS[1], 'generation', 'token')
if head[1] == ARGV[3] then return 1 end
if (head[1] or '') ~= ARGV[1] then return 0 end
if ARGV[2] ~= '*' and (head[2] or '') ~= ARGV[2] then return 0 end
if redis.call('EXISTS', KEYS[3], KEYS[4]) < 2 then return -1 end
redis.call('HSET', KEYS[1], 'generation', ARGV[3], 'space', ARGV[4], 'snapshot', ARGV[5],
    'edits', 0, 'versions', ARGV[9])
if ARGV[6] ~= '' then
    local now = redis.call('TIME')
    redis.call('HSET', KEYS[1], 'version', ARGV[5], 'token', ARGV[6],
        'at', now[1] .. string.format('%06d', now[2]))
    redis.call('HDEL', KEYS[1], 'hold', 'held_until')
end
if ARGV[11] ~= '' then
    local version = string.format('%d', ARGV[5] + 1)
    redis.call('XADD', KEYS[2], version .. '-0',
        'edits', ARGV[10], 'token', ARGV[11], 'after', ARGV[6])
    redis.call('HSET', KEYS[1], 'version', version, 'token', ARGV[11])
end
for i = 5, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[8]) end
redis.call('PERSIST', KEYS[3])
redis.call('PERSIST', KEYS[4])
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[7] .. '-0')
return 1
"""

# KEYS  head, staged, mark; then the records to write
# ARGV  1 if the mark is to be as expected, the mark that is expected, the new one or '' to leave
#       it, seconds that it stays; then the records; then their ids
# Returns 0, and writes nothing, when another mark is there.
STAGE = """
if ARGV[1] == '1' then
    local mark = redis.call('GET', KEYS[3]) or ''
    if mark ~= ARGV[2] and mark ~= ARGV[3] then return 0 end
end
local stamp = redis.call('HINCRBY', KEYS[1], 'staged', 1)
local count = #KEYS - 3
for i = 1, count do
    redis.call('SET', KEYS[3 + i], ARGV[4 + i])
    redis.call('HSET', KEYS[2], ARGV[4 + count + i], stamp)
end
if ARGV[3] ~= '' then redis.call('SET', KEYS[3], ARGV[3], 'EX', ARGV[4]) end
return 1
"""

# KEYS  staged
# ARGV  the newest stamp that was read; then ids that leave unless they were staged again since
SETTLE = """
for i = 2, #ARGV do
    if tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or 0) <= tonumber(ARGV[1])
    then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
"""

# KEYS  head
# ARGV  a hold of one's own, seconds that it lasts or 0 to let go
# Returns 0 while somebody else holds the catalogue.
HOLD = """
local now = tonumber(redis.call('TIME')[1])
local hold = redis.call('HMGET', KEYS[1], 'hold', 'held_until')
if hold[1] and hold[1] ~= ARGV[1] and tonumber(hold[2]) > now then return 0 end
if ARGV[2] == '0' then
    redis.call('HDEL', KEYS[1], 'hold', 'held_until')
else
    redis.call('HSET', KEYS[1], 'hold', ARGV[1], 'held_until', now + ARGV[2])
end
return 1
"""

# What can come to lie within reach of an event of a history: whatever is `more` steps or less from
# its time, where that is the reach and one for every event of the batch that may move an item.
_REACHED = """
local function reached(history, at, more)
    local from = redis.call('ZCOUNT', history, '-inf', '(' .. at) - more
    local upto = redis.call('ZCOUNT', history, '-inf', at) + more - 1
    return redis.call('ZRANGE', history, math.max(0, from), upto)
end
"""

# KEYS  histories
# ARGV  per event the place of its history, its microseconds, and `more`; see above
# Returns the items that these events can make pairs with.
READ_REACHED = (
    _REACHED
    + """
local found, items = {}, {}
for i = 1, #ARGV, 3 do
    for _, item in ipairs(reached(KEYS[tonumber(ARGV[i])], ARGV[i + 1], tonumber(ARGV[i + 2]))) do
        if not found[item] then
            found[item] = true
            items[#items + 1] = item
        end
    end
end
return items
"""
)

# KEYS  counts, when items were forgotten, the ids of this period's events, those of the last
#       period; then the users' histories, their facts, and the neighbours that may change
# ARGV  stem of the keys of neighbours; seconds that a user and event ids stay; most neighbours,
#       longest history, reach; how many users; where changes of counts start; weights forward,
#       then backward, by distance; then per event its id, the place of its user, its item, its
#       microseconds since the epoch, and `more`; see above
# Returns per event 0 counted, 1 repeated, 2 duplicate, 3 too old; false, and writes nothing, when
# a history holds an item whose neighbours are not among the keys. An event's id comes last, so
# that one that is cut short is not taken for one that was counted.
RECORD_EVENTS = (
    _REACHED
    + """
local near, user_ttl = ARGV[1], ARGV[2]
local most, longest, reach = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local users, first = tonumber(ARGV[7]), 9 + 2 * reach
local declared = {}
for i = 5 + 2 * users, #KEYS do declared[KEYS[i]] = true end
for i = first, #ARGV, 5 do
    local history = KEYS[4 + tonumber(ARGV[i + 1])]
    for _, item in ipairs(reached(history, ARGV[i + 3], tonumber(ARGV[i + 4]))) do
        if not declared[near .. item] then return false end
    end
end
local function bump(of, other, weight)
    local list = near .. of
    redis.call('ZINCRBY', list, weight, other)
    if redis.call('ZCARD', list) <= most then return end
    local least = redis.call('ZRANGE', list, 0, 1, 'WITHSCORES')
    local at = least[1] == other and 3 or 1
    redis.call('ZREM', list, least[at])
    redis.call('ZINCRBY', list, math.floor(tonumber(least[at + 1]) / 2), other)
end
local function pair(before, after, distance)
    bump(before, after, ARGV[8 + distance])
    bump(after, before, ARGV[8 + reach + distance])
end
local function known(item, at, last)
    if not last then return false end
    local gone = tonumber(redis.call('ZSCORE', KEYS[2], item) or -1)
    return not (tonumber(last) <= gone and gone < tonumber(at))
end
local function record(user, item, at)
    local history, facts = KEYS[4 + user], KEYS[4 + users + user]
    local repeated = known(item, at, redis.call('ZSCORE', history, item))
    redis.call('ZADD', history, 'GT', at, item)
    redis.call('EXPIRE', history, user_ttl)
    redis.call('EXPIRE', facts, user_ttl)
    if repeated then return 1 end
    local rank = redis.call('ZRANK', history, item)
    local full = redis.call('ZCARD', history) > longest
    if full and rank == 0 then
        redis.call('ZREM', history, item)
        return 3
    end
    local from = math.max(0, rank - reach)
    local place = rank - from + 1
    for i, other in ipairs(redis.call('ZRANGE', history, from, rank + reach)) do
        if i < place then pair(other, item, place - i)
        elseif i > place then pair(item, other, i - place) end
    end
    if redis.call('HEXISTS', KEYS[1], '') == 0 then redis.call('HSET', KEYS[1], '', ARGV[8]) end
    redis.call('HINCRBY', KEYS[1], item, 1)
    redis.call('HINCRBY', KEYS[1], '', 1)
    if full then redis.call('ZREMRANGEBYRANK', history, 0, 0) end
    return 0
end
local outcomes = {}
for i = first, #ARGV, 5 do
    local id, outcome = ARGV[i], 2
    if redis.call('SISMEMBER', KEYS[3], id) + redis.call('SISMEMBER', KEYS[4], id) == 0 then
        outcome = record(tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3])
        redis.call('SADD', KEYS[3], id)
    end
    outcomes[#outcomes + 1] = outcome
end
redis.call('EXPIRE', KEYS[3], ARGV[3])
return outcomes
"""
)

# KEYS  counts, then the neighbours of some items
# Returns how often counts have changed, then per item its neighbours, each before its weight.
READ_NEIGHBOURS = """
local found = {redis.call('HGET', KEYS[1], '') or '0'}
for i = 2, #KEYS do found[i] = redis.call('ZRANGE', KEYS[i], 0, -1, 'WITHSCORES') end
return found
"""

# KEYS  counts, when items were forgotten; then the neighbours of some items, then of these
# ARGV  stem of the keys of neighbours, how many forgotten items are remembered; then the items
# Begins with removing: a full server lets it go on after that.
FORGET_ITEMS = """
local near, declared, removed = ARGV[1], {}, 0
for i = #ARGV + 1, #KEYS do declared[KEYS[i]] = true end
local time = redis.call('TIME')
local now = time[1] .. string.format('%06d', time[2])
for i = 3, #ARGV do
    local item = ARGV[i]
    for _, other in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
        if declared[near .. other] then redis.call('ZREM', near .. other, item) end
    end
    redis.call('UNLINK', KEYS[i])
    if redis.call('HDEL', KEYS[1], item) == 1 then
        redis.call('ZADD', KEYS[2], now, item)
        removed = removed + 1
    end
end
if removed > 0 then
    redis.call('HINCRBY', KEYS[1], '', 1)
    redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - ARGV[2])
end
"""

# KEYS  counts, the neighbours of an item
# ARGV  items that leave them unless they have a count
SWEEP_NEIGHBOURS = """
for _, item in ipairs(ARGV) do
    if redis.call('HEXISTS', KEYS[1], item) == 0 then redis.call('ZREM', KEYS[2], item) end
end
"""

# KEYS  what came about for a user
# ARGV  one more of it, when it ends, the time now; both in seconds since the epoch
OWN = """
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
redis.call('EXPIREAT', KEYS[1], math.ceil(last or ARGV[2]))
"""

# KEYS  turn
# ARGV  whose turn it is to be; milliseconds that it lasts at most, or 0 to give it back;
#       milliseconds that somebody who asked in vain is remembered
# Returns 0 while it is somebody else's, or when somebody else has asked since one's own last.
TURN = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local turn = redis.call('HMGET', KEYS[1], 'owner', 'until', 'asked', 'asked_until')
local mine = turn[1] == ARGV[1]
if ARGV[2] == '0' then
    if mine then redis.call('HDEL', KEYS[1], 'until') end
    return 1
end
local free = not turn[2] or tonumber(turn[2]) <= now
local others = turn[3] and turn[3] ~= ARGV[1] and tonumber(turn[4]) > now
local given = free and not (mine and others)
if given then
    redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', now + ARGV[2])
    if turn[3] == ARGV[1] then redis.call('HDEL', KEYS[1], 'asked') end
elseif not mine then
    redis.call('HSET', KEYS[1], 'asked', ARGV[1], 'asked_until', now + ARGV[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 2)
return given and 1 or 0
"""
