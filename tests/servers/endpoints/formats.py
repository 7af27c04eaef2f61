"""Kinds of endpoints that refuse a form of replies, or a part of a schema."""

from tests.servers.endpoints.kind import (
    Asked,
    Kind,
    Objection,
    Sent,
    every,
    formats,
    keywords_of,
    unless,
)
from tests.servers.endpoints.wording import openai_error

_NO_FORMAT = formats("text")


def _anthropic(asked: Asked) -> Sent | None:
    """Complains of the keywords of one type at a time."""
    for kind in ("integer", "string", "array"):
        names = sorted({name for type_, name in keywords_of(asked) if type_ == kind})
        if names:
            words = ", ".join(names)
            what = f"properties {words} are" if len(names) > 1 else f"property '{words}' is"
            said = f"output_config.format.schema: For '{kind}' type, {what} not supported"
            error = {"type": "invalid_request_error", "message": said}
            return Sent({"type": "error", "error": error}, 400)
    return None


def _strict_mode(asked: Asked) -> Sent | None:
    for _, name in keywords_of(asked):
        said = (
            "Invalid schema for response_format 'picks': In context=('properties', 'picks'), "
            f"'{name}' is not permitted."
        )
        return Sent(openai_error(said, "response_format", None), 400)
    return None


def _any_keyword(status: int, body: object) -> Objection:
    return unless(lambda asked: not keywords_of(asked), status, body)


KINDS = (
    Kind(
        "deepseek-format",
        "DeepSeek: no json_schema",
        (
            unless(
                formats("json_object", "text"),
                400,
                openai_error(
                    "This response_format type is unavailable now", None, "invalid_request_error"
                ),
            ),
        ),
        mode="json_object",
    ),
    Kind(
        "groq-format",
        "Groq: models without json_schema",
        (
            unless(
                formats("json_object", "text"),
                400,
                openai_error(
                    "This model does not support response format `json_schema`. See supported "
                    "models at https://console.groq.com/docs/structured-outputs#supported-models",
                    "response_format",
                ),
            ),
        ),
        mode="json_object",
    ),
    Kind(
        "groq-generation-fails",
        "Groq: now and then the model's JSON is not valid, and the call is refused",
        (
            every(
                3,
                Sent(
                    {
                        "error": {
                            "message": "Failed to generate JSON. Please adjust your prompt. See "
                            "'failed_generation' for more details.",
                            "type": "invalid_request_error",
                            "code": "json_validate_failed",
                            "failed_generation": '{"picks": [{"n": 1, "score"',
                        }
                    },
                    400,
                ),
            ),
        ),
    ),
    Kind(
        "lmstudio-object",
        "LM Studio: json_schema or text; the error is a string",
        (
            unless(
                formats("json_schema", "text"),
                400,
                {"error": "'response_format.type' must be 'json_schema' or 'text'"},
            ),
        ),
        mode="json_schema",
    ),
    Kind(
        "vllm-old-format",
        "vLLM before json_schema: the error is the object",
        (
            unless(
                formats("json_object", "text"),
                400,
                {
                    "object": "error",
                    "message": "[{'type': 'literal_error', 'loc': ('body', 'response_format', "
                    "'type'), 'msg': \"Input should be 'text' or 'json_object'\", 'input': "
                    "'json_schema', 'ctx': {'expected': \"'text' or 'json_object'\"}}]",
                    "type": "BadRequestError",
                    "param": None,
                    "code": 400,
                },
            ),
        ),
        mode="json_object",
    ),
    Kind(
        "tgi-format",
        "TGI: another name for the type; plain text from its web framework",
        (
            unless(
                formats("json", "regex"),
                422,
                "Failed to deserialize the JSON body into the target type: response_format.type: "
                "unknown variant `json_schema`, expected one of `json`, `regex` at line 1 column "
                "93",
                media="text/plain; charset=utf-8",
            ),
        ),
        mode="text",
    ),
    Kind(
        "perplexity-format",
        "Perplexity's older models: text alone; the message is a list as a string",
        (
            unless(
                _NO_FORMAT,
                400,
                {
                    "error": {
                        "message": '["At body -> response_format -> ResponseFormatText -> type: '
                        "Input should be 'text'\"]",
                        "type": "bad_request",
                        "code": 400,
                    }
                },
            ),
        ),
        mode="text",
    ),
    Kind(
        "together-mode",
        "Together: models without JSON mode",
        (
            unless(
                _NO_FORMAT,
                400,
                {
                    "id": "abc",
                    "error": {
                        "message": "Invalid response_format provided",
                        "type": "invalid_request_error",
                        "param": "response_format",
                        "code": None,
                    },
                },
            ),
        ),
        mode="text",
    ),
    Kind(
        "openrouter-404",
        "OpenRouter: 404 where no provider takes the parameters",
        (
            unless(
                _NO_FORMAT,
                404,
                {
                    "error": {
                        "message": "No endpoints found that can handle the requested parameters. "
                        "To learn more about provider routing, visit: "
                        "https://openrouter.ai/docs/provider-routing",
                        "code": 404,
                    }
                },
            ),
        ),
        mode="text",
    ),
    Kind(
        "schema-crashes",
        "servers whose grammar compiler fails: 500 to json_schema",
        (
            unless(
                formats("json_object", "text"),
                500,
                "Internal Server Error",
                media="text/plain",
            ),
        ),
        mode="json_object",
    ),
    Kind(
        "html-format",
        "a gateway that answers 400 with a page to any response_format",
        (unless(_NO_FORMAT, 400, "<html><h1>400 Bad Request</h1></html>", media="text/html"),),
        mode="text",
    ),
    Kind(
        "anthropic-keywords",
        "Anthropic's compatible endpoint: no limits in a schema",
        (_anthropic,),
        mode="json_schema",
    ),
    Kind(
        "openai-strict-keywords",
        "OpenAI's first strict mode, Azure's until 2025: no limits in a schema",
        (_strict_mode,),
        mode="json_schema",
    ),
    Kind(
        "xgrammar-keywords",
        "vLLM with xgrammar: some features of schemas, without their names",
        (
            _any_keyword(
                400,
                {
                    "object": "error",
                    "message": "The provided JSON schema contains features not supported by "
                    "xgrammar.",
                    "type": "BadRequestError",
                    "param": None,
                    "code": 400,
                },
            ),
        ),
    ),
    Kind(
        "llamacpp-grammar",
        "llama.cpp: limits that make its grammar too large",
        (
            _any_keyword(
                400,
                {
                    "error": {
                        "code": 400,
                        "message": "failed to parse grammar",
                        "type": "invalid_request_error",
                    }
                },
            ),
        ),
    ),
)
