"""Rejects unknown query parameters: a misspelt one would have no effect."""

from fastapi import Depends, Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from app.api.problems import FieldError, invalid, pointer

_ELSEWHERE = (params.Path, params.Header, params.Cookie)


async def _only_known(request: Request) -> None:
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute):
        return
    known = _names(route)
    unknown = [one for one in request.query_params if one not in known]
    if unknown:
        takes = ", ".join(sorted(known)) or "none"
        message = f"there is no such parameter here; known ones: {takes}"
        raise invalid(
            FieldError(source="query", pointer=pointer([name]), message=message) for name in unknown
        )


def _names(route: APIRoute) -> frozenset[str]:
    return frozenset(
        field.alias
        for field in get_flat_params(route.dependant)
        if not isinstance(field.field_info, _ELSEWHERE)
    )


ONLY_KNOWN = Depends(_only_known)
