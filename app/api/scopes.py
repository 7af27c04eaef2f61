"""Which scope each route needs: the whole policy in one table; routes without a rule are denied.

`admin` includes all other scopes. A route for one catalogue needs a key for that catalogue, and
is refused (403) before it is checked whether the catalogue exists.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal, TypeAlias

from fastapi import Request
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import BaseRoute

from app.api.dependencies import caller_of
from app.api.problems import ApiError
from app.keys import Caller, Scope

Reach: TypeAlias = Literal["catalog", "listed", "all", "none"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a key needs for a route: one of `scopes`; any scope when there are none.

    `reach`: "catalog", the catalogue of the path; "listed", the route itself filters its list;
    "all", every catalogue; "none", no key is needed. `audited` routes change much at once, or
    administrate.
    """

    scopes: frozenset[Scope]
    reach: Reach = "catalog"
    audited: bool = False


def _rule(*scopes: Scope, reach: Reach = "catalog", audited: bool = False) -> Rule:
    return Rule(frozenset(scopes), reach, audited)


RULES: Mapping[str, Rule] = {
    # No key: the answers contain no stored data.
    "livez": _rule(reach="none"),
    "readyz": _rule(reach="none"),
    "version": _rule(reach="none"),
    # Any key. The documentation pages have no operation ids: their rules are by path.
    "/openapi.json": _rule(reach="listed"),
    "/docs": _rule(reach="listed"),
    "/docs/start.js": _rule(reach="listed"),
    "/docs/{name}": _rule(reach="listed"),
    "list_catalogs": _rule(reach="listed"),
    "get_catalog": _rule(),
    # For web pages.
    "recommend": _rule("recommend"),
    "recommend_stream": _rule("recommend"),
    "recommend_batch": _rule("recommend"),
    "similar_items": _rule("recommend"),
    "search_similar": _rule("recommend"),
    "post_events": _rule("events"),
    # Reading and writing a catalogue.
    "get_recommendation": _rule("ingest"),
    "recommendation_metrics": _rule("ingest"),
    "put_item": _rule("ingest"),
    "patch_item": _rule("ingest"),
    "get_item": _rule("ingest"),
    "delete_item": _rule("ingest"),
    "put_enrichment": _rule("ingest"),
    "get_enrichment": _rule("ingest"),
    "delete_enrichment": _rule("ingest"),
    "batch_enrichments": _rule("ingest"),
    "list_items": _rule("ingest"),
    "batch_items": _rule("ingest"),
    "import_items": _rule("ingest", audited=True),
    "export_items": _rule("ingest"),
    "export_users": _rule("admin", audited=True),
    "put_user": _rule("ingest"),
    "get_user": _rule("ingest"),
    "delete_user": _rule("ingest"),
    "erase_users": _rule("ingest", audited=True),
    "get_tree": _rule("ingest"),
    "get_node": _rule("ingest"),
    "list_versions": _rule("ingest"),
    "compare_version": _rule("ingest"),
    "list_jobs": _rule("ingest", reach="listed"),
    "get_job_result": _rule("admin", reach="listed", audited=True),
    "get_job": _rule("ingest", reach="listed"),
    "job_events": _rule("ingest", reach="listed"),
    "cancel_job": _rule("ingest", reach="listed", audited=True),
    # Changes the shape of a catalogue, or costs money.
    "patch_node": _rule("admin", audited=True),
    "rebuild_tree": _rule("admin", audited=True),
    "enrich_items": _rule("admin", audited=True),
    "start_recommendation_run": _rule("admin", audited=True),
    "tune_vectors": _rule("admin", audited=True),
    "activate_version": _rule("admin", audited=True),
    # The whole service.
    "patch_catalog": _rule("admin", audited=True),
    "put_catalog": _rule("admin", reach="all", audited=True),
    "delete_catalog": _rule("admin", reach="all", audited=True),
    "list_keys": _rule("admin", reach="all"),
    "create_key": _rule("admin", reach="all", audited=True),
    "revoke_key": _rule("admin", reach="all", audited=True),
    "get_backup": _rule("admin", reach="all", audited=True),
    "list_audit": _rule("admin", reach="all"),
    "metrics": _rule("metrics", reach="all"),
}


async def authorized(request: Request) -> None:
    """A dependency of every route, before all others. Raises ApiError."""
    route = request.scope["route"]
    rule = RULES[_name(route)]
    caller = caller_of(request)
    permit(caller, rule.scopes)
    match rule.reach:
        case "catalog":
            name = request.path_params["catalog"]
            if not caller.reaches(name):
                raise _forbidden("forbidden_catalog", "this key is not for this catalogue")
        case "all":
            if not caller.reaches_all:
                detail = 'this is about the whole service: it needs a key for all catalogues ("*")'
                raise _forbidden("forbidden_catalog", detail)
        case "listed" | "none":
            pass
    if rule.audited:
        request.state.audited = {
            "act": route.operation_id,
            "target": dict(request.path_params) | dict(request.query_params),
        }


def permit(caller: Caller, scopes: Iterable[Scope]) -> None:
    """Raises ApiError, 403, unless the caller has one of `scopes`, or there are none."""
    needed = sorted(scopes)
    if needed and not any(caller.may(scope) for scope in needed):
        wanted = " or ".join(dict.fromkeys([*needed, "admin"]))
        raise _forbidden("forbidden_scope", f"this needs a key with the scope {wanted}")


def needs_key(operation: str) -> bool:
    """Whether an operation needs a key."""
    return RULES[operation].reach != "none"


def without_rule_in(routes: Sequence[BaseRoute]) -> list[str]:
    """The routes of an application without a rule; there must be none."""
    found = []
    for context in iter_route_contexts(routes):
        route = context.original_route
        path = str(context.path or route)
        if isinstance(route, APIRoute):
            if _name(route) not in RULES:
                found.append(_name(route))
        else:
            found.append(path)
    return found


def _name(route: APIRoute) -> str:
    return route.operation_id or route.path


def _forbidden(code: str, detail: str) -> ApiError:
    return ApiError(HTTPStatus.FORBIDDEN, code, detail)
