"""The pages of docs/ that are made from the code: `python -m tests.documents` writes them."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from app.api.scopes import RULES
from app.main import create_app
from app.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_METHODS = ("get", "put", "post", "patch", "delete")
_TAGS = {
    "recommend": "Recommendations",
    "items": "Items",
    "transfer": "Whole catalogues",
    "catalogs": "Catalogues",
    "users": "Users and events",
    "tree": "The tree",
    "jobs": "Jobs",
    "keys": "Keys",
    "health": "Health",
}
_API = """\
# Routes

Made from the description of the API, which a running service shows in full at `/docs`. Where the
service has [keys](security.md), a route takes a key with the scope that is named. Errors are
`application/problem+json`; `code` names the kind. See also the [limits of HTTP](http.md),
[filters](filters.md), [near-duplicates](near_duplicates.md) and [catalogues](catalogs.md).
"""
_SETTINGS = """\
# Settings

Every setting is an environment variable. A name that is no setting stops the start.

"""


def pages() -> dict[str, str]:
    """The text of every page that is made, by its name."""
    return {"settings.md": _SETTINGS + _settings() + "\n", "api.md": "\n".join(_api()) + "\n"}


def examples() -> Iterator[tuple[str, str, str, object]]:
    """Every example of a body: method, path, content type, and the body."""
    for method, path, operation in _operations():
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            for example in _resolved(content["schema"]).get("examples", ()):
                yield method, path, kind, example


def _settings() -> str:
    """The settings as a Markdown table."""
    lines = ["| variable | default | what it sets |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, {}) else f"`{field.default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def _api() -> Iterator[str]:
    yield _API
    for tag, title in _TAGS.items():
        yield f"## {title}\n"
        yield "| route | does | scope |"
        yield "|---|---|---|"
        mine = [found for found in _operations() if tag in found[2]["tags"]]
        for method, path, operation in mine:
            does = " ".join(operation["description"].split("\n\n")[0].split())
            rule = RULES[operation["operationId"]]
            scope = "no key" if rule.reach == "none" else " or ".join(sorted(rule.scopes)) or "any"
            yield f"| `{method} {path}` | {does} | {scope} |"
        yield ""
        for method, path, operation in mine:
            content = operation.get("requestBody", {}).get("content", {})
            shown = next((_resolved(one["schema"]).get("examples") for one in content.values()), ())
            for example in shown or ():
                yield f"`{method} {path}` takes, for example:\n"
                yield f"```json\n{json.dumps(example, ensure_ascii=False)}\n```\n"


def _operations() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, operations in _description()["paths"].items():
        for method in _METHODS:
            if method in operations:
                yield method.upper(), path, operations[method]


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Mapping[str, Any] = _description()["components"]["schemas"][reference.split("/")[-1]]
    return found


@cache
def _description() -> dict[str, Any]:
    return create_app(Settings()).openapi()


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
