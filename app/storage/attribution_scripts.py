"""The Lua scripts by which lists and what came of them are counted.

A list is one string of fields that each end with a zero byte: day, bucket, its labels, version of
the tree, number of items, the items, then a mark for each thing that has been counted. A `?` before
the bucket: the list counts with the first event that names it.
"""

from tree.redis.script import Script

# A tally is a field of its label, and one for every eight buckets in which something was counted,
# so that a count writes little into the log of the store: for each bucket four counts of 4 bytes,
# and a sum of 8 bytes. `changes` are five numbers to add for each bucket that changes.
_TALLY = """
local columns = {lists = 1, impressions = 2, clicks = 3, conversions = 4, value = 5}
local in_part, size = 8, 24
local function change(tally, field, changes, writes)
    local parts = {}
    for bucket, by in pairs(changes) do
        local part = math.floor(bucket / in_part)
        local name = field .. '\\0' .. part
        local data = parts[name] or redis.call('HGET', tally, name)
            or string.rep('\\0', size * in_part)
        local from = size * (bucket - part * in_part)
        local a, b, c, d, e = struct.unpack('<I4I4I4I4d', data, from + 1)
        parts[name] = string.sub(data, 1, from) .. struct.pack('<I4I4I4I4d',
            a + by[1], b + by[2], c + by[3], d + by[4], e + by[5])
            .. string.sub(data, from + size + 1)
    end
    for name, data in pairs(parts) do
        writes[#writes + 1] = name
        writes[#writes + 1] = data
    end
end
local function write(tally, writes)
    for from = 1, #writes, 1000 do
        redis.call('HSET', tally, unpack(writes, from, math.min(from + 999, #writes)))
    end
end
"""

# Counts a list by its labels. A label beyond the most of a day becomes OTHER, also in `labels`.
_COUNT_LIST = """
local function count_list(tally, labels, bucket)
    local writes = {}
    for i, dimension in ipairs(dimensions) do
        local field = dimension .. '\\0' .. labels[i]
        if redis.call('HEXISTS', tally, field) == 0 then
            local number = 'labels\\0' .. dimension
            if tonumber(redis.call('HGET', tally, number) or 0) >= tonumber(most_labels) then
                labels[i] = other
                field = dimension .. '\\0' .. other
            else
                redis.call('HINCRBY', tally, number, 1)
            end
            redis.call('HSET', tally, field, '')
        end
        change(tally, field, {[bucket] = {1, 0, 0, 0, 0}}, writes)
    end
    write(tally, writes)
    redis.call('EXPIRE', tally, tally_s)
end
"""

KEEP_LIST = Script(
    _TALLY
    + _COUNT_LIST
    + """
if redis.call('EXISTS', list) == 1 then return 0 end
if is_shown == '1' then count_list(tally, labels, tonumber(bucket)) else bucket = '?' .. bucket end
local content = day .. '\\0' .. bucket .. '\\0' .. table.concat(labels, '\\0') .. '\\0' .. rest
redis.call('SET', list, content, 'EX', list_s)
return 1
""",
    keys=("list", "tally", "head"),
    args=(
        "list_s",
        "tally_s",
        "day",
        "bucket",
        "is_shown",  # 0: it counts with its first event
        "most_labels",
        "other",
        "rest",  # what stands behind the labels
        "dimensions*",
        "labels*",
    ),
    refuses_deleted=True,
)

# Returns per event 0 attributed, 1 repeated, 2 late, 3 unknown, 4 not shown.
ATTRIBUTE_EVENTS = Script(
    _TALLY
    + _COUNT_LIST
    + """
local declared = {}
for _, key in ipairs(tallies) do declared[key] = true end
local labelled = #dimensions
local function parsed(content)
    local list = {content = content, labels = {}, places = {}, marks = {}, new = {}}
    local at, items = 0, 0
    for field in string.gmatch(content, '([^%z]*)%z') do
        at = at + 1
        local item = at - labelled - 4
        if at == 1 then list.day = field
        elseif at == 2 then
            list.waits = string.sub(field, 1, 1) == '?'
            list.bucket = tonumber(list.waits and string.sub(field, 2) or field)
        elseif at <= labelled + 2 then list.labels[at - 2] = field
        elseif at == labelled + 4 then items = tonumber(field)
        elseif item > items then list.marks[field] = true
        elseif item > 0 and not list.places[field] then list.places[field] = item
        end
    end
    return list
end
-- The start of a list; the version of the tree follows.
local function start_of(list, bucket)
    return list.day .. '\\0' .. bucket .. '\\0' .. table.concat(list.labels, '\\0') .. '\\0'
end
local found, touched = {}, {}
local function read(key)
    if found[key] == nil then
        local content = redis.call('GET', key)
        found[key] = content and parsed(content) or false
    end
    return found[key]
end
local function add(tally, field, bucket, column, value)
    local fields = touched[tally] or {}
    touched[tally] = fields
    local buckets = fields[field] or {}
    fields[field] = buckets
    local by = buckets[bucket] or {0, 0, 0, 0, 0}
    buckets[bucket] = by
    by[column] = by[column] + 1
    by[columns.value] = by[columns.value] + value
end
local lost = {}
local function lose(reason) lost[reason] = (lost[reason] or 0) + 1 end
local function attribute(i)
    local key = lists[tonumber(event_lists[i])]
    local list = read(key)
    local tally = list and tallies_stem .. list.day
    if not list or not declared[tally] then
        local reason = event_ours[i] == '1' and 'late' or 'unknown'
        lose(reason)
        return reason == 'late' and 2 or 3
    end
    local place = list.places[event_items[i]]
    if not place then
        lose('not_shown')
        return 4
    end
    local mark = event_marks[i] .. ':' .. place
    if list.marks[mark] then return 1 end
    if list.waits then
        list.rest = string.sub(list.content, #start_of(list, '?' .. list.bucket) + 1)
        list.waits = false
        count_list(tally, list.labels, list.bucket)
    end
    list.marks[mark] = true
    list.new[#list.new + 1] = mark .. '\\0'
    local column, value = columns[event_measures[i]], tonumber(event_values[i])
    for at = 1, labelled do
        add(tally, dimensions[at] .. '\\0' .. list.labels[at], list.bucket, column, value)
    end
    return 0
end
local codes = {}
for i = 1, #event_lists do codes[i] = attribute(i) end
for key, fields in pairs(touched) do
    local writes = {}
    for field, changes in pairs(fields) do
        if redis.call('HEXISTS', key, field) == 1 then change(key, field, changes, writes) end
    end
    write(key, writes)
end
for key, list in pairs(found) do
    local marks = list and table.concat(list.new) or ''
    if list and list.rest then  -- it has been counted now
        local content = start_of(list, list.bucket) .. list.rest .. marks
        redis.call('SET', key, content, 'PX', math.max(1, redis.call('PTTL', key)))
    elseif #marks > 0 then
        redis.call('APPEND', key, marks)
    end
end
for reason, count in pairs(lost) do
    redis.call('HINCRBY', today, 'lost\\0' .. reason, count)
    redis.call('EXPIRE', today, tally_s)
end
return codes
""",
    keys=("head", "today", "lists*", "tallies*"),
    args=(
        "tally_s",
        "most_labels",
        "other",
        "tallies_stem",
        "dimensions*",
        "event_lists*",  # the places of their lists in `lists`
        "event_items*",
        "event_marks*",
        "event_measures*",
        "event_values*",  # in millionths
        "event_ours*",
    ),
    refuses_deleted=True,
)
