"""`/openapi.json`, and `/docs`: Swagger UI for it, without files from other servers."""

import asyncio
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from pydantic_core import to_json

router = APIRouter(include_in_schema=False)

# The package fastapi_swagger is used only for the files of swagger-ui-dist in it.
_ASSETS = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
}
_ASSET_HEADERS = {"Cache-Control": "public, max-age=3600"}

# Relative addresses: a proxy may serve this under another path.
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
_START = r"""SwaggerUIBundle({
  url: location.origin + location.pathname.replace(/docs\/?$/, "openapi.json"),
  dom_id: "#ui",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
"""


@router.get("/openapi.json")
async def description(request: Request) -> Response:
    """The description of this API, OpenAPI 3.1."""
    app = request.app
    assert isinstance(app, FastAPI)
    if app.openapi_schema is None:  # slow
        await asyncio.to_thread(app.openapi)
    return Response(to_json(app.openapi()), media_type="application/json")


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """The documentation page."""
    return HTMLResponse(_PAGE.format(title=request.app.title), headers=_PAGE_HEADERS)


@router.get("/docs/start.js")
async def start() -> Response:
    """The script that starts Swagger UI; a file, as the page's policy allows no inline script."""
    return Response(_START, media_type="text/javascript", headers=_ASSET_HEADERS)


@router.get("/docs/{name}")
async def asset(name: str) -> FileResponse:
    """A file of Swagger UI."""
    if name not in _ASSETS:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return FileResponse(_folder() / name, headers=_ASSET_HEADERS)


@cache
def _folder() -> Path:
    return Path(str(files("fastapi_swagger") / "resources"))
