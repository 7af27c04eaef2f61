"""The two Lua scripts by which a catalogue changes.

Both are safe to send twice, which a client does after a lost connection: the token that a script
brings tells it that it ran before. Both write first with a command that a full server refuses,
because a script that fails half-way is not rolled back.
"""

# KEYS  head, log, staged; then the records to write; then the records to remove
# ARGV  token of the base version, token and number of the new one, edits, how many they are,
#       how many records are written; then these records; then the ids that leave the staging area
# Returns false when the base is not the newest version, or else the edits and the versions
# since the last snapshot.
COMMIT = """
local head = redis.call('HMGET', KEYS[1], 'token', 'edits', 'snapshot')
if head[1] ~= ARGV[2] then
    if (head[1] or '') ~= ARGV[1] then return false end
    redis.call('XADD', KEYS[2], ARGV[3] .. '-0',
        'edits', ARGV[4], 'token', ARGV[2], 'after', ARGV[1])
    local written = tonumber(ARGV[6])
    for i = 1, written do redis.call('SET', KEYS[3 + i], ARGV[6 + i]) end
    for i = 4 + written, #KEYS do redis.call('DEL', KEYS[i]) end
    for i = 7 + written, #ARGV do redis.call('SREM', KEYS[3], ARGV[i]) end
    head[2] = redis.call('HINCRBY', KEYS[1], 'edits', ARGV[5])
    redis.call('HSET', KEYS[1], 'version', ARGV[3], 'token', ARGV[2])
end
return {tonumber(head[2]), tonumber(ARGV[3]) - tonumber(head[3])}
"""

# KEYS  head, log, the new snapshot, its space; then those that it takes the place of, if any
# ARGV  generation in place; token of the base version or '*' for any; the new generation and
#       the fingerprint of its space; its version; its token or '' to leave the head's version;
#       the oldest log entry to keep; seconds that the old snapshot stays for those who read it
# Returns 1; 0 when another generation or version is in place; -1 when the upload is not there.
FLIP = """
local head = redis.call('HMGET', KEYS[1], 'generation', 'token')
if head[1] == ARGV[3] then return 1 end
if (head[1] or '') ~= ARGV[1] then return 0 end
if ARGV[2] ~= '*' and (head[2] or '') ~= ARGV[2] then return 0 end
if redis.call('EXISTS', KEYS[3], KEYS[4]) < 2 then return -1 end
redis.call('HSET', KEYS[1],
    'generation', ARGV[3], 'space', ARGV[4], 'snapshot', ARGV[5], 'edits', 0)
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'version', ARGV[5], 'token', ARGV[6]) end
for i = 5, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[8]) end
redis.call('PERSIST', KEYS[3])
redis.call('PERSIST', KEYS[4])
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[7] .. '-0')
return 1
"""
