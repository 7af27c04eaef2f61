"""Kinds of endpoints whose models know no system role."""

from tests.servers.endpoints.kind import Kind, no_role, unless
from tests.servers.endpoints.wording import openai_error, reasoning_model

_SYSTEM = unless(
    no_role("system"),
    500,
    {
        "error": {
            "code": 500,
            "message": "System role not supported at row 1, column 105:\n{{ raise_exception('"
            "System role not supported') }}",
            "type": "server_error",
        }
    },
)

KINDS = (
    Kind("llamacpp-system", "llama.cpp with Gemma's template: 500", (_SYSTEM,)),
    Kind(
        "vllm-system",
        "vLLM with Gemma 2: 400, the error is the object",
        (
            unless(
                no_role("system"),
                400,
                {
                    "object": "error",
                    "message": "System role not supported",
                    "type": "BadRequestError",
                    "param": None,
                    "code": 400,
                },
            ),
        ),
    ),
    Kind(
        "gemma-developer",
        "Google's Gemma 3: no developer instruction",
        (
            unless(
                no_role("system"),
                400,
                [
                    {
                        "error": {
                            "code": 400,
                            "message": "Developer instruction is not enabled for "
                            "models/gemma-3-27b-it",
                            "status": "INVALID_ARGUMENT",
                        }
                    }
                ],
            ),
        ),
    ),
    Kind(
        "mistral-alternate",
        "Mistral 7B's template on vLLM: roles must alternate",
        (
            unless(
                no_role("system"),
                400,
                {
                    "object": "error",
                    "message": "Conversation roles must alternate user/assistant/user/assistant"
                    "/...",
                    "type": "BadRequestError",
                    "param": None,
                    "code": 400,
                },
            ),
        ),
    ),
    Kind(
        "o1-system",
        "o1-mini: a value of a message that is not supported, and all its other limits",
        (
            unless(
                no_role("system"),
                400,
                openai_error(
                    "Unsupported value: 'messages[0].role' does not support 'system' with this "
                    "model.",
                    "messages[0].role",
                    "unsupported_value",
                ),
            ),
            *reasoning_model(),
        ),
    ),
    Kind(
        "sglang-system",
        "SGLang with Gemma 2: 500 in plain text, without a word of the reason",
        (unless(no_role("system"), 500, "Internal Server Error", media="text/plain"),),
    ),
)
