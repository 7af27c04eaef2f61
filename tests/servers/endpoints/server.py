"""A server that plays one kind of endpoint at a time, over real HTTP."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.servers.endpoints.answerer import Json, answer_to
from tests.servers.endpoints.kind import Asked, Kind
from tests.servers.loopback import Loopback


class EndpointServer:
    """Serves from its construction until `stop`."""

    def __init__(self) -> None:
        routes = [Route("/{path:path}", self._answer, methods=["GET", "POST"])]
        self._loopback = Loopback(Starlette(routes=routes))
        self.play(Kind("plain", "OpenAI"))

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator["EndpointServer"]:
        """A server for the time of a block."""
        server = cls()
        try:
            yield server
        finally:
            server.stop()

    def play(self, kind: Kind) -> None:
        """Be an endpoint of this kind, which has had no request yet."""
        self._loopback.drop_connections()
        self.kind = kind
        self.trouble = False
        self.bodies: list[Json] = []
        self.statuses: list[int] = []
        self.base_url = f"http://{self._loopback.authority}{kind.base}"

    def stop(self) -> None:
        """Stop at once."""
        self._loopback.stop()

    async def _answer(self, request: Request) -> Response:
        if request.method == "GET" or not request.url.path.endswith("/chat/completions"):
            return JSONResponse({"error": {"message": "Not Found", "code": 404}}, 404)
        body = json.loads(await request.body())
        self.bodies.append(body)
        asked = Asked(
            body,
            len(self.bodies),
            dict(request.query_params),
            dict(request.headers),
            self.trouble,
        )
        sent = self.kind.answer(asked, answer_to(body))
        self.statuses.append(sent.status)
        return Response(sent.content, sent.status, dict(sent.headers), sent.media)
