"""The words of refusals that several kinds of endpoints share."""

from tests.servers.endpoints.kind import Asked, Objection, unless, without


def openai_error(message: str, param: str | None = None, code: str | None = None) -> object:
    kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def warm(asked: Asked) -> bool:
    return bool(asked.body.get("temperature", 1) == 1)


def reasoning_model() -> tuple[Objection, ...]:
    """What gpt-5 and the o-series refuse, one after the other."""
    return (
        without(
            "max_tokens",
            400,
            openai_error(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                "'max_completion_tokens' instead.",
                "max_tokens",
                "unsupported_parameter",
            ),
        ),
        unless(
            warm,
            400,
            openai_error(
                "Unsupported value: 'temperature' does not support 0 with this model. Only the "
                "default (1) value is supported.",
                "temperature",
                "unsupported_value",
            ),
        ),
    )
