"""Kinds of models that write their answer in another way than they are asked to."""

import json
import re
from collections.abc import Callable

from tests.servers.endpoints.answerer import Answer, Json, Writing
from tests.servers.endpoints.kind import Kind


def _json(change: Callable[[str], str]) -> Writing:
    """The JSON after a change; lines stay as they are."""
    return lambda answer: answer.text if answer.value is None else change(answer.text)


def _picks(change: Callable[[list[Json]], object], name: str = "picks") -> Writing:
    """The JSON with other picks, also under another name."""

    def writes(answer: Answer) -> str:
        if answer.value is None or "picks" not in answer.value:
            return answer.text
        rest = {key: value for key, value in answer.value.items() if key != "picks"}
        return json.dumps({**rest, name: change(answer.value["picks"])})

    return writes


def _list_alone(answer: Answer) -> str:
    """The list without the object around it."""
    if answer.value is None or len(answer.value) > 1:
        return answer.text
    return json.dumps(next(iter(answer.value.values())))


def _scores(change: Callable[[int], object]) -> Writing:
    return _picks(lambda picks: [{**pick, "score": change(pick["score"])} for pick in picks])


def _as_strings(picks: list[Json]) -> object:
    return [{name: str(value) for name, value in pick.items()} for pick in picks]


def _by_number(picks: list[Json]) -> object:
    return {str(pick["n"]): pick["score"] for pick in picks}


def _schema_first(answer: Answer) -> str:
    schema = {"type": "object", "properties": {"picks": {"type": "array", "items": {}}}}
    return f"The schema is {json.dumps(schema)}.\n{answer.text}"


KINDS = (
    Kind("fence", "most models in text mode: JSON in a fence with words around", writes=_json(
        lambda said: f"Sure, here you are:\n\n```json\n{said}\n```\n\nLet me know!")),
    Kind("string", "gateways that encode the JSON a second time", writes=_json(json.dumps)),
    Kind("said-twice", "models that repeat their answer", writes=_json(
        lambda said: f"{said}\n\n{said}")),
    Kind("trailing-comma", "small models", writes=_json(
        lambda said: re.sub(r"(\}|\])\]", r"\1,]", said))),
    Kind("comments", "code models: // and /* */ in the JSON", writes=_json(
        lambda said: said.replace("[", "[ // the best first\n", 1).replace("}", " /* yes */}", 1))),
    Kind("single-quotes", "models that write Python", writes=_json(
        lambda said: said.replace('"', "'"))),
    Kind("prose-around", "models that explain, with brackets in their words", writes=_json(
        lambda said: f"I chose {{n, score}} by taste [see above]. {said} These [1] are best.")),
    Kind("bare-list", "models that leave out the object", writes=_list_alone),
    Kind("map", "models that write scores by number", writes=_picks(_by_number)),
    Kind("strings", "models that quote numbers", writes=_picks(_as_strings)),
    Kind("percent", "models that write \"85%\"", writes=_scores(lambda score: f"{score}%")),
    Kind("of-hundred", "models that write \"85/100\"", writes=_scores(lambda s: f"{s}/100")),
    Kind("shares", "models that score from 0 to 1", writes=_scores(lambda score: score / 100)),
    Kind("renamed", "models that call the list something else", writes=_picks(list, "results")),
    Kind("wrapped", "models that put the answer into an object more", writes=_json(
        lambda said: f'{{"answer": {said}}}')),
    Kind("schema-echo", "models that repeat the schema first", writes=_schema_first),
    Kind("tool-call-text", "Hermes and Qwen: a tool call as text", writes=_json(
        lambda said: f'<tool_call>\n{{"name": "picks", "arguments": {said}}}\n</tool_call>')),
    Kind("draft-then-answer", "models that correct themselves", writes=lambda answer:
         f"First try: {answer.draft}\n\nCorrected:\n{answer.text}"),
    Kind("curly-quotes", "models that write typographic quotes", writes=_json(
         lambda said: said.replace('{"', "{“").replace('":', "”:").replace(', "', ", “"))),
)  # fmt: skip
