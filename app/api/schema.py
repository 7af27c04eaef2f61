"""What /openapi.json says beyond FastAPI's own: bodies that are read by hand, and problems."""

from collections.abc import Sequence
from copy import deepcopy
from http import HTTPStatus
from typing import TypeAlias

from fastapi import FastAPI
from pydantic import BaseModel, JsonValue
from pydantic.json_schema import models_json_schema

from app.api.problems import PROBLEM_JSON, Problem

Document: TypeAlias = dict[str, JsonValue]

_COMPONENTS = "#/components/schemas/"
_ALWAYS = (HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)


def problems(*statuses: HTTPStatus) -> dict[int | str, Document]:
    """`responses` of a route: its own problems and those of every route over a catalogue."""
    return {
        int(status): {
            "description": status.phrase,
            "content": {PROBLEM_JSON: {"schema": {"$ref": f"{_COMPONENTS}{Problem.__name__}"}}},
        }
        for status in sorted({*_ALWAYS, *statuses})
    }


READS_JSON = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)
WRITES = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.INSUFFICIENT_STORAGE)


def takes(model: type[BaseModel] | str, *types: str, required: bool = True) -> Document:
    """`openapi_extra` of a route that reads its body by hand: a model, or the name of a schema."""
    name = model if isinstance(model, str) else model.__name__
    schema: Document = {"schema": {"$ref": f"{_COMPONENTS}{name}"}}
    content: Document = dict.fromkeys(types or ("application/json",), schema)
    return {"requestBody": {"required": required, "content": content}}


def describe(app: FastAPI, bodies: Sequence[type[BaseModel]], extra: Document) -> None:
    """Make /openapi.json hold the schemas that `takes` and `problems` point to."""
    generated = app.openapi

    def openapi() -> dict[str, JsonValue]:
        if app.openapi_schema is None:
            document = generated()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name, schema in (_schemas([*bodies, Problem]) | extra).items():
                schemas.setdefault(name, schema)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def without(model: type[BaseModel], field: str) -> JsonValue:
    """The schema of `model` where `field` may be left out."""
    schema = deepcopy(_schemas([model])[model.__name__])
    assert isinstance(schema, dict)
    required = schema["required"]
    assert isinstance(required, list)
    return {**schema, "required": [name for name in required if name != field]}


def _schemas(models: Sequence[type[BaseModel]]) -> Document:
    template = _COMPONENTS + "{model}"
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template=template
    )
    schemas: Document = found["$defs"]
    return schemas
