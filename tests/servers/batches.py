"""A server with the batch API of OpenAI, whose results are as bad as it is told."""

import asyncio
import json
from collections.abc import Callable, Sequence
from email import message_from_bytes
from email.message import Message
from email.policy import HTTP
from functools import partial
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tests.servers.loopback import Loopback

Body: TypeAlias = dict[str, Any]
Lines: TypeAlias = list[Body]
Results: TypeAlias = Sequence[Body | bytes]  # bytes: a line that is no JSON

INPUT_TOKENS, OUTPUT_TOKENS = 100, 10  # of every call
_BOUND_S = 30


def answered(request: Body, text: str | None = None) -> Body:
    """A line of the output file; without a text it repeats the question."""
    body = request["body"]
    text = body["messages"][-1]["content"] if text is None else text
    return {
        "id": f"batch_req_{request['custom_id']}",
        "custom_id": request["custom_id"],
        "response": {
            "status_code": 200,
            "request_id": "req",
            "body": {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "model": body["model"],
                "choices": [
                    {
                        "index": 0,
                        "message": {
                            "role": "assistant",
                            "content": text,
                        },
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS},
            },
        },
        "error": None,
    }


def refused(request: Body, status: int = 400, code: str = "invalid_value") -> Body:
    """A line of a request that the endpoint does not accept."""
    error = {"message": "Invalid prompt.", "type": "invalid_request_error", "code": code}
    response = {"status_code": status, "request_id": "req", "body": {"error": error}}
    return {"id": "x", "custom_id": request["custom_id"], "response": response, "error": None}


def never_asked(request: Body, code: str = "batch_expired") -> Body:
    """A line of a request that was not made."""
    error = {"code": code, "message": "This request could not be executed."}
    return {"id": "x", "custom_id": request["custom_id"], "response": None, "error": error}


class BatchServer:
    """Batches go through `states`, one per poll, and end with the lines of `output` and `errors`.

    `faults` are statuses with which the next calls to "METHOD /path" are answered; 0 loses the
    answer of a call that was carried out, -1 never answers, -2 breaks off in the middle.
    """

    files: dict[str, bytes]
    batches: dict[str, Body]
    states: list[str]
    output: Callable[[Lines], Results]
    errors: Callable[[Lines], Results]
    faults: dict[str, list[int]]
    problems: list[str]  # codes of a batch that fails
    calls: list[str]
    page: int  # batches of one answer to a list
    instead: int | None  # the status of a page with which a server without this API answers

    def __init__(self) -> None:
        one = "/v1/batches/{batch}"
        routes = [
            Route("/v1/files", self._upload, methods=["POST"]),
            Route("/v1/files/{file}/content", self._content),
            Route("/v1/files/{file}", self._delete, methods=["DELETE"]),
            Route("/v1/batches", self._create, methods=["POST"]),
            Route("/v1/batches", self._list),
            Route(one, self._retrieve),
            Route(f"{one}/cancel", self._cancel, methods=["POST"]),
        ]
        app = Starlette(routes=routes)
        app.add_middleware(_Faults, server=self)
        self._loopback = Loopback(app)
        self.base_url = self._loopback.base_url
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._loopback.drop_connections()
        self._numbers = 0
        self.files, self.batches, self.faults = {}, {}, {}
        self._asked: dict[str, bytes] = {}
        self.states = ["validating", "in_progress", "in_progress", "finalizing", "completed"]
        self.output = lambda requests: [answered(request) for request in requests]
        self.errors = lambda requests: []
        self.problems = []
        self.calls = []
        self.page = 100
        self.instead = None

    def stop(self) -> None:
        self._loopback.stop()

    def lose(self, request: Request) -> None:
        """Reset the connection of a request."""
        assert request.client is not None
        self._loopback.reset_connection((request.client.host, request.client.port))

    def requests_of(self, batch: Body) -> Lines:
        """What was asked in a batch."""
        return [json.loads(line) for line in self._asked[batch["id"]].splitlines()]

    def _id(self, kind: str) -> str:
        self._numbers += 1
        return f"{kind}-{self._numbers}"

    async def _upload(self, request: Request) -> Response:
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        form: Message = message_from_bytes(head + await request.body(), policy=HTTP)
        parts = {
            str(part.get_param("name", header="content-disposition")): part
            for part in form.walk()
            if not part.is_multipart()
        }
        assert parts["purpose"].get_payload(decode=True).strip() == b"batch"  # type: ignore[union-attr]
        content = parts["file"].get_payload(decode=True)
        assert isinstance(content, bytes)
        file_id = self._id("file")
        self.files[file_id] = content
        answer = {"id": file_id, "object": "file", "bytes": len(content), "purpose": "batch"}
        return JSONResponse({**answer, "filename": parts["file"].get_filename()})

    async def _content(self, request: Request) -> Response:
        file_id = request.path_params["file"]
        if file_id not in self.files:
            return _error(404, "No such File object")
        return Response(self.files[file_id], media_type="application/octet-stream")

    async def _delete(self, request: Request) -> Response:
        file_id = request.path_params["file"]
        if self.files.pop(file_id, None) is None:
            return _error(404, "No such File object")
        return JSONResponse({"id": file_id, "object": "file", "deleted": True})

    async def _create(self, request: Request) -> Response:
        body = await request.json()
        assert body["endpoint"] == "/v1/chat/completions"
        assert body["completion_window"] == "24h"
        batch_id = self._id("batch")
        self._asked[batch_id] = self.files[body["input_file_id"]]
        self.batches[batch_id] = {
            "id": batch_id,
            "object": "batch",
            "endpoint": body["endpoint"],
            "completion_window": "24h",
            "status": self.states[0],
            "input_file_id": body["input_file_id"],
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            "metadata": body.get("metadata"),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "left": self.states[1:],
        }
        return JSONResponse(self.batches[batch_id])

    async def _list(self, request: Request) -> Response:
        newest = [*reversed(self.batches.values())]
        ids = [batch["id"] for batch in newest]
        begin = (
            ids.index(request.query_params["after"]) + 1 if "after" in request.query_params else 0
        )
        page = newest[begin : begin + self.page]
        more = begin + self.page < len(newest)
        return JSONResponse({"object": "list", "data": page, "has_more": more})

    async def _retrieve(self, request: Request) -> Response:
        batch = self.batches.get(request.path_params["batch"])
        if batch is None:
            return _error(404, "No batch found")
        if batch["left"]:
            batch["status"] = batch["left"].pop(0)
            self._move_on(batch)
        return JSONResponse(batch)

    async def _cancel(self, request: Request) -> Response:
        batch = self.batches[request.path_params["batch"]]
        batch["status"], batch["left"] = "cancelling", ["cancelled"]
        return JSONResponse(batch)

    def _move_on(self, batch: Body) -> None:
        requests = self.requests_of(batch)
        counts = batch["request_counts"]
        counts["total"] = len(requests)
        match batch["status"].lower():
            case "in_progress":
                counts["completed"] += (len(requests) - counts["completed"]) // 2
            case "failed":
                data = [{"code": code, "message": "no", "line": 1} for code in self.problems]
                batch["errors"] = {"object": "list", "data": data}
            case "completed" | "expired" | "cancelled":
                output, errors = self.output(requests), self.errors(requests)
                counts |= {"completed": len(output), "failed": len(errors)}
                batch["output_file_id"] = self._stored(output)
                batch["error_file_id"] = self._stored(errors)

    def _stored(self, lines: Results) -> str | None:
        """The id of a new file with these lines."""
        if not lines:
            return None
        file_id = self._id("file")
        written = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        self.files[file_id] = b"\n".join(written) + b"\n"
        return file_id


class _Faults:
    """Answers with the faults of a server, and notes the calls."""

    def __init__(self, app: Any, server: BatchServer) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive, send)
        name = f"{request.method} {request.url.path}"
        server = self._server
        server.calls.append(name)
        fault = server.faults[name].pop(0) if server.faults.get(name) else None
        match fault:
            case None if server.instead is not None:
                page = HTMLResponse("<title>Welcome</title>", server.instead)
                await page(scope, receive, send)
            case None:
                await self._app(scope, receive, send)
            case 0:
                await self._app(scope, receive, _nowhere)
                server.lose(request)
            case -2:
                await self._app(scope, receive, partial(self._half, request, send))
            case -1:
                async with asyncio.timeout(_BOUND_S):
                    while (await receive())["type"] != "http.disconnect":
                        pass
            case status:
                await _error(status, "not now")(scope, receive, send)

    async def _half(self, request: Request, send: Any, message: Any) -> None:
        if message["type"] == "http.response.body":
            half = message["body"][: len(message["body"]) // 2]
            await send({**message, "body": half, "more_body": True})
            self._server.lose(request)
        else:
            await send(message)


async def _nowhere(message: Any) -> None:
    """Where an answer is lost."""


def _error(status: int, message: str) -> Response:
    error = {"message": message, "type": "server_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status_code=status)
