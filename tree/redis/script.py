"""`Script`: a Lua script whose keys and arguments have names."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from redis.asyncio import Redis
from redis.typing import EncodableT

TOMBSTONE = "deleted"  # a field of the head of a deleted catalogue
DELETED = "CATALOGDELETED"  # the error by which a script refuses to write

Value: TypeAlias = EncodableT | Sequence[EncodableT]
BoundScript: TypeAlias = Callable[..., Awaitable[object]]

_LIST = "*"
_TAKE_LIST = """local function take(values, first, count)
    local taken = {}
    for i = 1, count do taken[i] = values[first + i - 1] end
    return taken, first + count
end
"""
_REFUSE_DELETED = f"""if redis.call('HEXISTS', head, '{TOMBSTONE}') == 1 then
    return redis.error_reply('{DELETED} the catalogue was deleted')
end
"""


@dataclass(frozen=True)
class Script:
    """A Lua script that reads its keys and arguments by name, and is called by these names.

    A name that ends in `*` is a list, in the script a table; lists stand after single values. A
    script that `refuses_deleted` writes nothing where its key `head` is that of a deleted
    catalogue.
    """

    body: str
    keys: tuple[str, ...]
    args: tuple[str, ...] = ()
    refuses_deleted: bool = False

    @property
    def lua(self) -> str:
        """The script as a server takes it: the names, then the body."""
        lists = [name for name in (*self.keys, *self.args) if name.endswith(_LIST)]
        lines = [_TAKE_LIST, "local next_place\n"] if lists else []
        for table, names, first in ("KEYS", self.keys, 1), ("ARGV", self.args, 1 + len(lists)):
            single = [name for name in names if not name.endswith(_LIST)]
            for place, name in enumerate(single, first):
                lines.append(f"local {name} = {table}[{place}]\n")
            start = str(first + len(single))
            for name in (name for name in names if name.endswith(_LIST)):
                count = f"tonumber(ARGV[{1 + lists.index(name)}])"
                lines.append(f"local {name.removesuffix(_LIST)}\n")
                lines.append(
                    f"{name.removesuffix(_LIST)}, next_place = take({table}, {start}, {count})\n"
                )
                start = "next_place"
        return "".join(lines) + (_REFUSE_DELETED if self.refuses_deleted else "") + self.body

    def on(self, client: Redis) -> BoundScript:
        """The script on a server. It is called with one value for each name.

        Raises TypeError for a name that is missing or unknown.
        """
        registered = client.register_script(self.lua)

        async def call(**values: Value) -> object:
            keys, args = self.numbered(values)
            return await registered(keys=keys, args=args)

        return call

    def numbered(self, values: Mapping[str, Value]) -> tuple[list[str], list[EncodableT]]:
        """Keys and arguments as the server takes them; the lengths of lists are arguments, too."""
        names = {name.removesuffix(_LIST) for name in (*self.keys, *self.args)}
        if values.keys() != names:
            raise TypeError(f"the script takes {sorted(names)}, not {sorted(values)}")
        lengths: list[EncodableT] = []

        def flat(part: Sequence[str]) -> list[EncodableT]:
            found: list[EncodableT] = []
            for name in part:
                value = values[name.removesuffix(_LIST)]
                if name.endswith(_LIST):
                    some = cast(Sequence[EncodableT], value)
                    lengths.append(len(some))
                    found += some
                else:
                    found.append(cast(EncodableT, value))
            return found

        keys, args = flat(self.keys), flat(self.args)
        return cast(list[str], keys), [*lengths, *args]
