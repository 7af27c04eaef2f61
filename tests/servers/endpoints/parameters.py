"""Kinds of endpoints that refuse a parameter, each in its own words and place."""

from tests.servers.endpoints.kind import Asked, Kind, Sent, unless, without
from tests.servers.endpoints.wording import openai_error, reasoning_model, warm


def _forbidden(name: str) -> list[object]:
    message = "Extra inputs are not permitted"
    return [{"type": "extra_forbidden", "loc": ["body", name], "msg": message, "input": 0}]


def _litellm(asked: Asked) -> Sent | None:
    """Names all that it does not take, with their values."""
    found = {name: asked.body[name] for name in ("seed", "response_format") if name in asked.body}
    said = (
        f"litellm.UnsupportedParamsError: ollama does not support parameters: {found}, for "
        "model=local. To drop these, set `litellm.drop_params=True` or for proxy:\n\n"
        "`litellm_settings:\n drop_params: true`\n"
    )
    error = {"message": said, "type": "None", "param": None, "code": "400"}
    return Sent({"error": error}, 400) if found else None


KINDS = (
    Kind("openai-reasoning", "OpenAI's gpt-5 and o-series", reasoning_model()),
    Kind(
        "azure",
        "Azure: the same models; 404 without the api-version of the address",
        (
            unless(
                lambda asked: asked.query.get("api-version") == "2024-10-21",
                404,
                {"error": {"code": "404", "message": "Resource not found"}},
            ),
            *reasoning_model(),
        ),
        base="/openai/deployments/gpt/?api-version=2024-10-21",
    ),
    Kind(
        "mistral-detail",
        "Mistral: 422 with a list under `detail`",
        (without("seed", 422, {"detail": _forbidden("seed")}),),
    ),
    Kind(
        "mistral-message-detail",
        "Mistral since 2025: 422 with `message.detail`",
        (
            without(
                "seed",
                422,
                {
                    "object": "error",
                    "message": {"detail": _forbidden("seed")},
                    "type": "invalid_request_error",
                    "param": None,
                    "code": None,
                },
            ),
        ),
    ),
    Kind(
        "gemini-list",
        "Gemini: 400 with a list of errors",
        (
            without(
                "seed",
                400,
                [
                    {
                        "error": {
                            "code": 400,
                            "message": 'Invalid JSON payload received. Unknown name "seed": '
                            "Cannot find field.",
                            "status": "INVALID_ARGUMENT",
                        }
                    }
                ],
            ),
        ),
    ),
    Kind(
        "kimi-temperature",
        "Kimi K2.5 and later: only temperature 1",
        (unless(warm, 400, openai_error("invalid temperature: only 1 is allowed for this model")),),
    ),
    Kind(
        "tgi-temperature",
        "TGI: 422, the error is a string",
        (
            unless(
                lambda asked: asked.body.get("temperature", 1) > 0,
                422,
                {
                    "error": "Input validation error: `temperature` must be strictly positive",
                    "error_type": "validation",
                },
            ),
        ),
    ),
    Kind(
        "cohere-field",
        "Cohere: 422 with a message alone",
        (
            without(
                "seed",
                422,
                {
                    "message": "unknown field: parameter 'seed' is not a valid field. For proper "
                    "usage, please refer to https://docs.cohere.com/reference/chat"
                },
            ),
        ),
    ),
    Kind(
        "xai-argument",
        "xAI: the error is a string beside a code in words",
        (
            without(
                "seed",
                400,
                {
                    "code": "Client specified an invalid argument",
                    "error": "Argument not supported on this model: seed",
                },
            ),
        ),
    ),
    Kind(
        "bedrock-extraneous",
        "Bedrock: a message alone; neither seed nor stream",
        tuple(
            without(
                name,
                400,
                {
                    "message": f"Malformed input request: #: extraneous key [{name}] is not "
                    "permitted, please reformat your input and try again."
                },
            )
            for name in ("seed", "stream")
        ),
    ),
    Kind(
        "bedrock-gateway",
        "bedrock-access-gateway: `detail` is a string",
        (
            without(
                "temperature",
                400,
                {
                    "detail": "An error occurred (ValidationException) when calling the Converse "
                    "operation: The model returned the following errors: `temperature` is "
                    "deprecated for this model."
                },
            ),
        ),
    ),
    Kind(
        "nim-problem",
        "NVIDIA NIM: 422 as a problem document",
        (
            without(
                "seed",
                422,
                {
                    "type": "urn:inference-service:problem-details:unprocessable-entity",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "detail": "body -> seed\n  Extra inputs are not permitted "
                    "(type=extra_forbidden)",
                },
            ),
        ),
    ),
    Kind(
        "fireworks-extra",
        "Fireworks: extra inputs with field and value",
        (
            without(
                "seed",
                400,
                openai_error("Extra inputs are not permitted, field: 'seed', value: 0"),
            ),
        ),
    ),
    Kind("litellm-params", "LiteLLM's proxy without drop_params", (_litellm,)),
    Kind(
        "zhipu-wordless",
        "Zhipu: code 1210, which names no parameter; temperature has to be above 0",
        (
            unless(
                lambda asked: asked.body.get("temperature", 1) > 0,
                400,
                {"error": {"code": "1210", "message": "API 调用参数有误，请检查文档。"}},
            ),
        ),
    ),
    Kind(
        "html-refusal",
        "a gateway that answers 400 with a page",
        (
            without(
                "seed",
                400,
                "<html><head><title>400 Bad Request</title></head><body><center><h1>400 Bad "
                "Request</h1></center><hr><center>nginx</center></body></html>",
                media="text/html",
            ),
        ),
    ),
    Kind(
        "empty-refusal",
        "a gateway that answers 422 with no body at all",
        (without("max_tokens", 422, "", media="text/plain"),),
    ),
    Kind(
        "seed-crashes",
        "vLLM on Gaudi: 500 to a request with a seed",
        (without("seed", 500, "Internal Server Error", media="text/plain"),),
    ),
    Kind(
        "dashscope-thinking",
        "DashScope's Qwen3: enable_thinking has to be false unless the call streams",
        (
            unless(
                lambda asked: (
                    bool(asked.body.get("stream")) or asked.body.get("enable_thinking") is False
                ),
                400,
                openai_error(
                    "parameter.enable_thinking must be set to false for non-streaming calls",
                    None,
                    "invalid_parameter_error",
                ),
            ),
        ),
    ),
)
