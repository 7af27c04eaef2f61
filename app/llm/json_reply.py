"""`JsonReply`: the entries of a list in a reply, however the model has written its JSON.

The last whole answer counts: what stands before it are thoughts and drafts.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Generic, TypeVar, cast

import msgspec

from app.llm.errors import InvalidReply
from app.llm.loose_json import Container, Found, containers
from app.llm.plain_json import UNREADABLE, number_of

Entry = TypeVar("Entry", bound=msgspec.Struct)


@dataclass(frozen=True)
class ListForm(Generic[Entry]):
    """A JSON object with a list of entries under a name.

    `key` is the field that tells entries apart: `{"picks": {"3": 90}}` has it as a key, and
    `[3, 7]` alone. `value` is the field of a single value beside it. `aliases` are other names that
    models give to fields.
    """

    name: str
    entry: type[Entry]
    key: str
    value: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def numbers(self) -> frozenset[str]:
        """The fields that hold one number."""
        fields = msgspec.inspect.type_info(self.entry).fields  # type: ignore[attr-defined]
        return frozenset(found.encode_name for found in fields if _is_number(found.type))

    @cached_property
    def decoder(self) -> msgspec.json.Decoder[msgspec.Struct]:
        """Reads the JSON that was asked for, and nothing else."""
        return msgspec.json.Decoder(_named(self.name, list[self.entry]))  # type: ignore[name-defined]

    def entry_of(self, value: object) -> Entry | None:
        """An entry as an object; None for another value."""
        if not isinstance(value, dict):
            return None
        fields = {str(name): said for name, said in value.items()}
        for alias, name in self.aliases.items():
            if name not in fields and alias in fields:
                fields[name] = fields[alias]
        for name in self.numbers & fields.keys():
            if fields[name] is not None:
                number = number_of(fields[name])
                if number is None:
                    return None
                fields[name] = int(number) if number.is_integer() else number
        try:
            return msgspec.convert(fields, self.entry, strict=False)
        except (msgspec.ValidationError, OverflowError, UnicodeEncodeError):
            return None

    def bare_entry_of(self, key: object, *values: object) -> Entry | None:
        """An entry of its key, and of a value or an object beside it."""
        if key is None or isinstance(key, bool | dict | list):
            return None
        if values and isinstance(values[0], dict):
            return self.entry_of({self.key: key, **values[0]})
        names = [self.value] if values and self.value is not None else []
        return self.entry_of({self.key: key, **dict(zip(names, values, strict=False))})


def _named(name: str, *found: object) -> type[msgspec.Struct]:
    """An object that has a value `found` of some type under a name, with a default or without."""
    return msgspec.defstruct(f"_{name}", [("found", *found)], rename={"found": name})  # type: ignore[list-item]


@lru_cache(maxsize=16)
def _strings_decoder(name: str) -> msgspec.json.Decoder[msgspec.Struct]:
    return msgspec.json.Decoder(_named(name, list[str], msgspec.field(default_factory=list)))


_T = TypeVar("_T")


def in_either_form(
    text: str,
    from_json: "Callable[[JsonReply], _T]",
    from_lines: Callable[[str], _T],
    *,
    json: bool,
) -> _T:
    """What was asked for as JSON or as lines, and may come as the other. Raises InvalidReply."""
    in_braces = "{" in text
    if json or in_braces:
        try:
            return from_json(JsonReply(text))
        except InvalidReply:
            if json and in_braces:
                raise
    return from_lines(text)


class JsonReply:
    """The JSON in the text of a reply."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.is_well_formed = True  # as far as it was read
        self._is_loose = False  # it had to be looked for

    @cached_property
    def _found(self) -> list[Found]:
        self.is_well_formed, self._is_loose = False, True
        return containers(self._text)

    def _decoded(self, decoder: msgspec.json.Decoder[msgspec.Struct]) -> object:
        """What the decoder finds in the text, or between its first and last braces; or None."""
        try:
            return decoder.decode(self._text).found  # type: ignore[attr-defined]
        except UNREADABLE:
            pass
        start, end = self._text.find("{"), self._text.rfind("}") + 1
        if (start, end) == (0, len(self._text)):
            return None
        try:
            found = decoder.decode(self._text[start:end]).found  # type: ignore[attr-defined]
        except UNREADABLE:
            return None
        self.is_well_formed = False
        return found

    def entries(self, form: ListForm[Entry]) -> list[Entry]:
        """The entries of the last whole answer; of an unfinished one those that are whole.

        Raises InvalidReply when there are none.
        """
        if (asked := self._decoded(form.decoder)) is not None:
            return cast("list[Entry]", asked)
        ordered = [found for found in reversed(self._found) if found.whole]
        ordered += [found for found in self._found if not found.whole]
        for ways in (_answer, _numbers_alone):
            for found in ordered:
                if (read := ways(form, found)) is not None:
                    return read
        singles = [form.entry_of(found.value) for found in self._found if found.whole]
        alone = [entry for entry in singles if entry is not None]
        if not alone:
            raise InvalidReply(f"no {form.name} in the reply")
        return alone

    def strings(self, name: str) -> list[str]:
        """The texts of the last list, or the text, under a name; none if there is none."""
        if not self._is_loose and (asked := self._decoded(_strings_decoder(name))) is not None:
            return cast("list[str]", asked)
        for found in reversed(self._found):
            if isinstance(found.value, dict) and (said := found.value.get(name)) is not None:
                return _texts([said] if isinstance(said, str) else {name: said})
        return []

    def unnamed_strings(self) -> list[str]:
        """The texts of the last list that stands alone, or is the only one of an object."""
        for found in reversed(self._found):
            if found.whole and not found.depth and (texts := _texts(found.value)):
                return texts
        return []


def _texts(value: Container) -> list[str]:
    """The texts in a list, or in the only list of an object, or in its only object of texts."""
    if isinstance(value, dict):
        inside = [one for one in value.values() if isinstance(one, list | dict)]
        if len(inside) != 1:
            return []
        value = inside[0]
    values = value.values() if isinstance(value, dict) else value
    return [one for one in values if isinstance(one, str)]


def _answer(form: ListForm[Entry], found: Found) -> list[Entry] | None:
    """The entries in an object that has them under the form's name, or in a list of objects."""
    value = found.value
    if isinstance(value, list):
        return _objects(form, value)
    if form.name in value:
        named = value[form.name]
        if isinstance(named, list):
            listed = list(_of_list(form, named))
            return listed if listed or (found.whole and not named) else None
        if isinstance(named, dict):
            return list(_of_map(form, named)) or None
        return None
    for member in value.values():
        if isinstance(member, list) and (entries := _objects(form, member)):
            return entries
    return None


def _objects(form: ListForm[Entry], values: list[object]) -> list[Entry] | None:
    entries = [form.entry_of(value) for value in values]
    return [entry for entry in entries if entry is not None] or None


def _of_list(form: ListForm[Entry], values: list[object]) -> Iterator[Entry]:
    """Entries as objects, as lists of a key and a value, or as keys alone."""
    for value in values:
        if isinstance(value, dict):
            entry = form.entry_of(value)
        elif isinstance(value, list):
            entry = form.bare_entry_of(*value) if value else None
        else:
            entry = form.bare_entry_of(value)
        if entry is not None:
            yield entry


def _of_map(form: ListForm[Entry], values: Mapping[str, object]) -> Iterator[Entry]:
    for key, value in values.items():
        if value is not None and (entry := form.bare_entry_of(key, value)) is not None:
            yield entry


def _numbers_alone(form: ListForm[Entry], found: Found) -> list[Entry] | None:
    """The entries in a list of keys or an object of values that stands by itself."""
    if found.depth or not found.whole or form.key not in form.numbers:
        return None
    value: Container = found.value
    ways = _of_list(form, value) if isinstance(value, list) else _of_map(form, value)
    return list(ways) or None


def _is_number(kind: object) -> bool:
    if isinstance(kind, msgspec.inspect.UnionType):
        return any(_is_number(one) for one in kind.types)
    return isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType)
