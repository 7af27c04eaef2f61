"""The Lua scripts by which users and events are stored.

Like those of the tree they are safe to send twice, write first with a command that a full server
refuses, and write nothing for a deleted catalogue.
"""

from tree.redis.script import Script

# The items that may be within reach of an event: those at most `more` steps from its time, where
# `more` is the reach plus one for every event of the batch that may move an item.
_REACHED = """
local function reached(history, at, more)
    local from = redis.call('ZCOUNT', history, '-inf', '(' .. at) - more
    local upto = redis.call('ZCOUNT', history, '-inf', at) + more - 1
    return redis.call('ZRANGE', history, math.max(0, from), upto)
end
"""
# Of the events of a batch, one value for each.
_USERS = "event_users*"  # places of their users in the lists of keys
_TIMES = "event_times*"  # microseconds since the epoch
_MORE = "event_more*"  # see _REACHED

# Returns the items that some events can make pairs with.
READ_REACHED = Script(
    _REACHED
    + """
local found, items = {}, {}
for i, user in ipairs(event_users) do
    for _, item in ipairs(reached(histories[tonumber(user)], event_times[i], event_more[i])) do
        if not found[item] then
            found[item] = true
            items[#items + 1] = item
        end
    end
end
return items
""",
    keys=("histories*",),
    args=(_USERS, _TIMES, _MORE),
)

# Returns per event 0 counted, 1 repeated, 2 duplicate, 3 too old; false, and writes nothing, when
# a history holds an item whose neighbours are not among the keys. An event's id is written last, so
# that an event that was cut short does not seem to be counted.
RECORD_EVENTS = Script(
    _REACHED
    + """
local declared = {}
for _, key in ipairs(neighbours) do declared[key] = true end
for i, user in ipairs(event_users) do
    for _, item in ipairs(reached(histories[tonumber(user)], event_times[i], event_more[i])) do
        if not declared[neighbours_stem .. item] then return false end
    end
end
local function bump(of, other, weight)
    local list = neighbours_stem .. of
    redis.call('ZINCRBY', list, weight, other)
    if redis.call('ZCARD', list) <= tonumber(most_neighbours) then return end
    local least = redis.call('ZRANGE', list, 0, 1, 'WITHSCORES')
    local at = least[1] == other and 3 or 1
    redis.call('ZREM', list, least[at])
    redis.call('ZINCRBY', list, math.floor(tonumber(least[at + 1]) / 2), other)
end
local function pair(before, after, distance)
    bump(before, after, forward[distance])
    bump(after, before, backward[distance])
end
local function is_known(item, at, last)
    if not last then return false end
    local gone = tonumber(redis.call('ZSCORE', forgotten, item) or -1)
    return not (tonumber(last) <= gone and gone < tonumber(at))
end
local function record(user, item, at)
    local history, known = histories[user], facts[user]
    local repeated = is_known(item, at, redis.call('ZSCORE', history, item))
    redis.call('ZADD', history, 'GT', at, item)
    redis.call('EXPIRE', history, user_s)
    redis.call('EXPIRE', known, user_s)
    if repeated then return 1 end
    local rank = redis.call('ZRANK', history, item)
    local full = redis.call('ZCARD', history) > tonumber(longest_history)
    if full and rank == 0 then
        redis.call('ZREM', history, item)
        return 3
    end
    local reach = #forward
    local from = math.max(0, rank - reach)
    local place = rank - from + 1
    for i, other in ipairs(redis.call('ZRANGE', history, from, rank + reach)) do
        if i < place then pair(other, item, place - i)
        elseif i > place then pair(item, other, i - place) end
    end
    if redis.call('HEXISTS', counts, '') == 0 then redis.call('HSET', counts, '', changes) end
    redis.call('HINCRBY', counts, item, 1)
    redis.call('HINCRBY', counts, '', 1)
    if full then redis.call('ZREMRANGEBYRANK', history, 0, 0) end
    return 0
end
local outcomes = {}
for i, id in ipairs(event_ids) do
    local outcome = 2
    if redis.call('SISMEMBER', ids_now, id) + redis.call('SISMEMBER', ids_before, id) == 0 then
        outcome = record(tonumber(event_users[i]), event_items[i], event_times[i])
        redis.call('SADD', ids_now, id)
    end
    outcomes[#outcomes + 1] = outcome
end
redis.call('EXPIRE', ids_now, ids_s)
return outcomes
""",
    keys=(
        "counts",
        "forgotten",
        "ids_now",  # of the events of this period
        "ids_before",  # of those of the period before
        "head",
        "histories*",
        "facts*",  # of the same users
        "neighbours*",  # that may change
    ),
    args=(
        "neighbours_stem",
        "user_s",  # seconds that a user stays
        "ids_s",  # seconds that ids of events stay
        "most_neighbours",
        "longest_history",
        "changes",  # of the counts, where there are none
        "forward*",  # weights by distance
        "backward*",
        "event_ids*",
        _USERS,
        "event_items*",
        _TIMES,
        _MORE,
    ),
    refuses_deleted=True,
)

# Returns how often counts have changed, then per item its neighbours, each before its weight.
READ_NEIGHBOURS = Script(
    """
local found = {redis.call('HGET', counts, '') or '0'}
for i, key in ipairs(neighbours) do
    found[i + 1] = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
end
return found
""",
    keys=("counts", "neighbours*"),
)

# Removes first: a full server then accepts what it writes.
FORGET_ITEMS = Script(
    """
local declared, removed = {}, 0
for _, key in ipairs(theirs) do declared[key] = true end
local time = redis.call('TIME')
local now = time[1] .. string.format('%06d', time[2])
for i, item in ipairs(items) do
    for _, other in ipairs(redis.call('ZRANGE', neighbours[i], 0, -1)) do
        local list = neighbours_stem .. other
        if declared[list] then redis.call('ZREM', list, item) end
    end
    redis.call('UNLINK', neighbours[i])
    if redis.call('HDEL', counts, item) == 1 then
        redis.call('ZADD', forgotten, now, item)
        removed = removed + 1
    end
end
if removed > 0 then
    redis.call('HINCRBY', counts, '', 1)
    redis.call('ZREMRANGEBYRANK', forgotten, 0, -1 - most_forgotten)
end
""",
    keys=(
        "counts",
        "forgotten",
        "head",
        "neighbours*",  # of the items
        "theirs*",  # the neighbours of these
    ),
    args=("neighbours_stem", "most_forgotten", "items*"),
    refuses_deleted=True,
)

SWEEP_NEIGHBOURS = Script(
    """
for _, item in ipairs(items) do
    if redis.call('HEXISTS', counts, item) == 0 then redis.call('ZREM', neighbours, item) end
end
""",
    keys=("counts", "neighbours"),
    args=("items*",),  # that leave them unless they have a count
)

PUT_USER = Script(
    """
redis.call('SET', facts, content, 'EX', user_s)
redis.call('UNLINK', history)
for i, item in ipairs(items) do redis.call('ZADD', history, times[i], item) end
if #items > 0 then redis.call('EXPIRE', history, user_s) end
""",
    keys=("facts", "history", "head"),
    args=(
        "content",  # of the facts
        "user_s",  # seconds that a user stays
        "items*",  # of the history
        "times*",  # of these, in microseconds since the epoch
    ),
    refuses_deleted=True,
)

ADD_DOCUMENT = Script(
    """
redis.call('ZADD', owned, ends_at, name)
redis.call('ZREMRANGEBYSCORE', owned, '-inf', now)
local last = redis.call('ZREVRANGE', owned, 0, 0, 'WITHSCORES')[2]
redis.call('EXPIREAT', owned, math.ceil(last or ends_at))
""",
    keys=("owned", "head"),
    args=(
        "name",  # of a document of a user
        "ends_at",  # in seconds since the epoch, as is `now`
        "now",
    ),
    refuses_deleted=True,
)
