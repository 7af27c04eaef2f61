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

# Returns a number per event, see COUNTED and so on; false, and writes nothing, when a history holds
# an item whose neighbours are not among the keys. An event's id is written last, so that an event
# that was cut short does not seem to be counted.
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
local COUNTED, REPEATED, DUPLICATE, TOO_OLD, NOTED, OVER_LIMIT = 0, 1, 2, 3, 4, 5
local whole, fraction = tonumber(whole), tonumber(inherited)
local kinds = {}
for i, name in ipairs(type_names) do
    local weight, hides = tonumber(type_weights[i]), tonumber(type_hides[i])
    -- of two events the stronger one is kept: one that hides, then the larger weight
    kinds[name] = {weight = weight, hides = hides, strength = hides * 2 * whole + math.abs(weight)}
end
local unknown = {weight = 0, hides = 0, strength = 0}
local function kind_of(name) return kinds[name] or unknown end

local function bump(of, other, weight)
    local list = neighbours_stem .. of
    redis.call('ZINCRBY', list, weight, other)
    if redis.call('ZCARD', list) <= tonumber(most_neighbours) then return end
    local least = redis.call('ZRANGE', list, 0, 1, 'WITHSCORES')
    local at = least[1] == other and 3 or 1
    redis.call('ZREM', list, least[at])
    local half = math.min(math.floor(math.floor(tonumber(least[at + 1])) / 2), fraction - 1)
    redis.call('ZINCRBY', list, string.format('%.6f', half + half / fraction), other)
end
local function pair(before, after, distance, share)
    local more = math.floor(share * forward[distance] / whole + 0.5)
    if more > 0 then bump(before, after, more) end
    more = math.floor(share * backward[distance] / whole + 0.5)
    if more > 0 then bump(after, before, more) end
end
local function add(item, users, at)
    if redis.call('HEXISTS', counts, '') == 0 then redis.call('HSET', counts, '', changes) end
    local known, since, ever = 0, 0, 0
    local stored = redis.call('HGET', counts, item)
    if stored then
        known, since, ever = string.match(stored, '^(%S+) ?(%d*) ?(%S*)$')
        known, since, ever = tonumber(known), tonumber(since) or 0, tonumber(ever) or 0
    end
    local half_life = tonumber(half_life_s)
    if half_life > 0 or ever > 0 then ever = math.max(known, ever) + users end
    if half_life > 0 and since > 0 then
        local late = 2 ^ (-math.abs(at - since) / half_life)
        if at >= since then known = known * late else users = users * late end
    end
    local value = string.format('%.17g %.0f', known + users, math.max(at, since))
    if ever > 0 then value = value .. string.format(' %.17g', ever) end
    redis.call('HSET', counts, item, value)
    redis.call('HINCRBY', counts, '', 1)
end
local function is_known(item, at, last)
    if not last then return false end
    local gone = tonumber(redis.call('ZSCORE', forgotten, item) or -1)
    return not (last <= gone and gone < at)
end
local function weight_and_name(deed)
    if not deed then return whole, had end
    local weight, name = string.match(deed, '^(%d+) (.*)$')
    return tonumber(weight), name
end
local function keep(done, item, weight, name)
    if weight == whole and name == had then
        redis.call('HDEL', done, item)
    else
        redis.call('HSET', done, item, string.format('%d %s', weight, name))
    end
end
local function may_count(done)
    local limit = tonumber(most_per_day)
    if limit < 0 then return true end
    local day, today = string.match(redis.call('HGET', done, '') or '', '^(%d+) (%d+)$')
    today = day == this_day and tonumber(today) or 0
    if today >= limit then return false end
    redis.call('HSET', done, '', this_day .. ' ' .. (today + 1))
    return true
end
local function record(user, item, at, name)
    local history, done = histories[user], deeds[user]
    local kind, time = kind_of(name), tonumber(at)
    local score = redis.call('ZSCORE', history, item)
    local last = score and tonumber(score)
    local known, before, weight, earlier = is_known(item, time, last), 0, 0, nil
    if last then
        weight, earlier = weight_and_name(redis.call('HGET', done, item))
        if known then before = weight end
        local old = kind_of(earlier).strength
        if kind.strength < old or (kind.strength == old and time < last) then name = earlier end
    end
    local gain = math.max(0, kind.weight) - before
    redis.call('ZADD', history, 'GT', at, item)
    redis.call('EXPIRE', history, user_s)
    redis.call('EXPIRE', facts[user], user_s)
    keep(done, item, before, name)
    local function finished(outcome)
        redis.call('EXPIRE', done, user_s)
        return outcome
    end
    if known and gain <= 0 then return finished(kind.weight > 0 and REPEATED or NOTED) end
    if redis.call('ZCARD', history) > tonumber(longest_history) then
        local oldest = redis.call('ZRANGE', history, 0, 0)[1]
        redis.call('ZREM', history, oldest)
        redis.call('HDEL', done, oldest)
        if oldest == item then return finished(TOO_OLD) end
    end
    if gain <= 0 then return finished(NOTED) end
    if not may_count(done) then return finished(OVER_LIMIT) end
    local now = before + gain
    keep(done, item, now, name)
    local rank, reach = redis.call('ZRANK', history, item), #forward
    local from = math.max(0, rank - reach)
    local place = rank - from + 1
    local others = redis.call('ZRANGE', history, from, rank + reach)
    local theirs = redis.call('HMGET', done, unpack(others))
    for i, other in ipairs(others) do
        local weight = weight_and_name(theirs[i])
        local more = math.min(now, weight) - math.min(before, weight)
        if i < place then pair(other, item, place - i, more)
        elseif i > place then pair(item, other, i - place, more) end
    end
    add(item, gain / whole, math.floor(time / 1000000))
    return finished(COUNTED)
end
local outcomes = {}
for i, id in ipairs(event_ids) do
    local outcome, kind = DUPLICATE, kind_of(event_types[i])
    if kind.weight == 0 and kind.hides == 0 then
        outcome = NOTED
    elseif redis.call('SISMEMBER', ids_now, id) + redis.call('SISMEMBER', ids_before, id) == 0 then
        outcome = record(tonumber(event_users[i]), event_items[i], event_times[i], event_types[i])
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
        "deeds*",  # of the same users
        "neighbours*",  # that may change
    ),
    args=(
        "neighbours_stem",
        "user_s",  # seconds that a user stays
        "ids_s",  # seconds that ids of events stay
        "most_neighbours",
        "longest_history",
        "changes",  # of the counts, where there are none
        "whole",  # a weight of 1
        "inherited",  # what an inherited weight is divided by
        "had",  # the type of a deed that is not stored
        "half_life_s",  # of counts; 0 for none
        "this_day",
        "most_per_day",  # that count of one user; -1 for any number
        "type_names*",
        "type_weights*",  # of the same types, in wholes
        "type_hides*",  # 1 where they take the item from the lists of the user
        "forward*",  # weights by distance
        "backward*",
        "event_ids*",
        _USERS,
        "event_items*",
        "event_types*",
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
redis.call('UNLINK', history, done)
for i, item in ipairs(items) do
    redis.call('ZADD', history, times[i], item)
    if deeds[i] ~= '' then redis.call('HSET', done, item, deeds[i]) end
end
if #items > 0 then
    redis.call('EXPIRE', history, user_s)
    redis.call('EXPIRE', done, user_s)
end
""",
    keys=("facts", "history", "done", "head"),
    args=(
        "content",  # of the facts
        "user_s",  # seconds that a user stays
        "items*",  # of the history
        "times*",  # of these, in microseconds since the epoch
        "deeds*",  # of these; empty for what is not stored
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
