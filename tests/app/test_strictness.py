"""What a body may hold: no kind of value is quietly taken for another."""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.fields import FieldInfo

import app
from tree.item import Item

# By the types that a schema has to name for it.
_VALUES: dict[str, list[Any]] = {
    "boolean": [True, False],
    "number": [0, 1, 1.5],
    "string": ["1", "true", "12345", "1e3"],
}
_MOMENTS = ["12345", "1700000000", "2026-01-31", "2026-01-31T12:00:00", "2026-W05-6T12:00:00Z", 5]


_WHERE = ("app.api.", "app.catalogs", "app.curate.", "app.recommend.", "app.signals.", "tree.item")


def _models() -> list[type[BaseModel]]:
    """The models of bodies: they refuse unknown fields. Those of queries read text."""
    for found in pkgutil.walk_packages(app.__path__, "app."):
        if found.name.startswith(_WHERE):
            importlib.import_module(found.name)
    return [
        model
        for model in dict.fromkeys(_below(BaseModel))
        if model.__module__.startswith(_WHERE)
        and model.model_config.get("extra") == "forbid"
        and not model.__name__.endswith("Query")
    ]


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in model.__subclasses__():
        yield one
        yield from _below(one)


@pytest.mark.parametrize("model", _models(), ids=lambda model: model.__name__)
def test_no_kind_of_value_is_taken_for_another(model):
    for name, field in model.model_fields.items():
        adapter = _adapter(field, model.model_config)
        schema = json.dumps(adapter.json_schema()).replace("integer", "number")
        for kind, values in _VALUES.items():
            if f'"{kind}"' in schema or '"type"' not in schema:
                continue
            for value in values:
                with pytest.raises(ValueError, match="validation error"):
                    pytest.fail(f"{name}: {adapter.validate_json(json.dumps(value))!r}")


@pytest.mark.parametrize("value", _MOMENTS)
def test_a_moment_is_written_out(value):
    item = {"id": "a", "title": "A", "published_at": value}
    with pytest.raises(ValueError, match="must be a time such as"):
        Item.model_validate_json(json.dumps(item))


def _adapter(field: FieldInfo, config: ConfigDict) -> TypeAdapter:
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return TypeAdapter(kind)  # its own config decides
    return TypeAdapter(kind, config=ConfigDict(strict=config.get("strict", False)))
