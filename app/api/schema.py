"""Additions to FastAPI's /openapi.json: bodies that are read by hand, and problems."""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from http import HTTPStatus
from typing import Any, TypeAlias

from fastapi import FastAPI, Path
from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo
from pydantic.json_schema import models_json_schema

from app.api.problems import PROBLEM_JSON, Problem
from tree.item import NO_NUL

Document: TypeAlias = dict[str, JsonValue]

_CLEAR = (
    r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]+$"  # ids without control characters, see Boundary
)
# The gate's errors, with a root key and without.
_KEYED = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_OPEN = (HTTPStatus.FORBIDDEN, HTTPStatus.MISDIRECTED_REQUEST)

_COMPONENTS = "#/components/schemas/"
_ALWAYS = (HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)


def problems(*statuses: HTTPStatus) -> dict[int | str, Document]:
    """`responses` of a route: its own problems, and those of every route of a catalogue."""
    return _responses(sorted({*_ALWAYS, *statuses}))


def _responses(statuses: Iterable[HTTPStatus]) -> dict[int | str, Document]:
    return {
        int(status): {
            "description": status.phrase,
            "content": {PROBLEM_JSON: {"schema": {"$ref": f"{_COMPONENTS}{Problem.__name__}"}}},
        }
        for status in statuses
    }


READS_JSON = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)
WRITES = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.INSUFFICIENT_STORAGE)


def id_in_path(kind: str) -> FieldInfo:
    """The path parameter for an id."""
    return Path(description=f'Everything after "{kind}/"; "/" is part of the id.')


def takes(model: type[BaseModel] | str, *types: str, required: bool = True) -> Document:
    """`openapi_extra` of a route that reads its body by hand: a model, or a schema's name."""
    name = model if isinstance(model, str) else model.__name__
    schema: Document = {"schema": {"$ref": f"{_COMPONENTS}{name}"}}
    content: Document = dict.fromkeys(types or ("application/json",), schema)
    return {"requestBody": {"required": required, "content": content}}


def each(model: type[BaseModel]) -> Document:
    """`json_schema_extra` of a list of rows that the route validates one by one, as `model`.

    The model needs a place in the schemas: another route answers with it, or it is a body.
    """
    return {"items": {"$ref": f"{_COMPONENTS}{model.__name__}"}}


def describe(
    app: FastAPI,
    bodies: Sequence[type[BaseModel]],
    extra: Document,
    needs_key: Callable[[str], bool] | None,
) -> None:
    """Add the schemas of `takes` and `problems` to /openapi.json, and which operations need a key.

    With `needs_key` None, no operation needs one.
    """
    generated = app.openapi

    def openapi() -> dict[str, JsonValue]:
        if app.openapi_schema is None:
            document = generated()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name, schema in (_schemas([*bodies, Problem]) | extra).items():
                schemas.setdefault(name, schema)
            _describe_gate(document, needs_key)
            for path in document["paths"].values():
                for operation in path.values():
                    _clear_paths(operation.get("parameters", []))
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _clear_paths(parameters: Sequence[Document]) -> None:
    """Describe what `Boundary` requires of every id in a path."""
    for parameter in parameters:
        if parameter["name"] == "catalog":  # an invalid name is an unknown catalogue
            continue
        schema = parameter["schema"]
        assert isinstance(schema, dict)
        place, kind = parameter["in"], schema.get("type")
        if (place, kind) == ("path", "string") and schema.get("pattern", NO_NUL) == NO_NUL:
            schema["pattern"] = _CLEAR


def content(model: type[BaseModel], title: str, *, without: str, partial: bool = False) -> Document:
    """The schema of a body with the fields of `model`, except `without`, which is in the path.

    An optional field may also be null. With `partial`, all fields are optional, and null removes
    an entry of an object (a merge patch).
    """
    schema = deepcopy(_schemas([model])[model.__name__])
    assert isinstance(schema, dict)
    fields, required = schema["properties"], schema["required"]
    assert isinstance(fields, dict)
    assert isinstance(required, list)
    properties = {
        name: field
        if name in required
        else _or_null(_nullable_entries(field) if partial else field)
        for name, field in fields.items()
        if name != without
    }
    needed: list[JsonValue] = [name for name in required if name != without and not partial]
    return {**schema, "title": title, "properties": properties, "required": needed}


def _nullable_entries(field: JsonValue) -> JsonValue:
    """`field`; if it is an object, its entries may be null."""
    assert isinstance(field, dict)
    entries = field.get("patternProperties")
    if not isinstance(entries, dict):
        return field
    return {**field, "patternProperties": {name: _or_null(one) for name, one in entries.items()}}


def _or_null(field: JsonValue) -> JsonValue:
    assert isinstance(field, dict)
    kinds = field.get("anyOf")
    if isinstance(kinds, list):
        return (
            field if {"type": "null"} in kinds else {**field, "anyOf": [*kinds, {"type": "null"}]}
        )
    about = {"title", "description", "default"}
    kind: Document = {name: value for name, value in field.items() if name not in about}
    rest: Document = {name: value for name, value in field.items() if name in about}
    return {**rest, "anyOf": [kind, {"type": "null"}]}


def _describe_gate(document: dict[str, Any], needs_key: Callable[[str], bool] | None) -> None:
    """Describe the errors of all operations, and how a key is sent."""
    refusals = (
        *(_KEYED if needs_key else _OPEN),
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.UNPROCESSABLE_ENTITY,  # unknown query parameters
    )
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, response in _responses(refusals).items():
                operation["responses"].setdefault(str(status), response)
            if needs_key and not needs_key(operation["operationId"]):
                operation["security"] = []
    if needs_key:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        document["security"] = [{"bearer": []}, {"header": []}]


def _schemas(models: Sequence[type[BaseModel]]) -> Document:
    template = _COMPONENTS + "{model}"
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template=template
    )
    schemas: Document = found["$defs"]
    return schemas
