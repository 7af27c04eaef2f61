"""A stand-in for a model: it picks options by the words they share with the user's history.

It reads the real prompts and replies in the required form, so that the tokens of prompts can be
counted where no model is configured. It says nothing about the quality of a real model.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import cast

from app.llm import STAGES, Models, ReplyMode, StageModel
from app.llm.chat import JsonSchema, Reply, ScriptedChat, TokenUsage, Turn
from app.llm.tokens import estimated_tokens
from app.storage.documents import MemoryDocuments

_OPTION = re.compile(r"^(\d+)\. (.*)$", re.MULTILINE)
_WORD = re.compile(r"\w{3,}")
_TOPICS = 3

NAME = "word-overlap (stand-in)"


def stand_in() -> ScriptedChat:
    """A model for the reply mode `json_schema`. Its usage is estimated.

    The score of an option sums the words that it shares with the lines about the person; a word
    counts 1/n where n options have it.
    """
    return ScriptedChat(_answer, NAME)


def models() -> Models:
    """The stand-in at every stage."""
    documents = MemoryDocuments()
    return Models(dict.fromkeys(STAGES, StageModel(stand_in())), documents, ReplyMode.JSON_SCHEMA)


def _answer(turn: Turn) -> Reply:
    if not isinstance(turn.form, JsonSchema):
        raise TypeError("the stand-in is asked in the reply mode json_schema only")
    contents = [message.content for message in turn.messages]
    options, _, person = contents[-1].partition("\n\n")
    fields = cast(Mapping[str, Mapping[str, int]], turn.form.schema["properties"])
    reply: dict[str, object] = {}
    if "topics" in fields:
        listed = person if "picks" in fields else contents[-1]
        reply |= {"topics": _topics(listed), "avoid": []}
    if "titles" in fields:
        lines = contents[-1].splitlines()
        found = [line[2:].strip() for line in lines if line.startswith(("- ", "1. "))]
        reply["titles"] = [found[-1] if found else "anything"]
    if "picks" in fields:
        most = fields["picks"]["maxItems"]
        items = cast(Mapping[str, Mapping[str, object]], fields["picks"]["items"])
        picks = _picks(options, person, most)
        by_interest = "for" in items["properties"]
        reply["picks"] = [{**pick, "for": 1} if by_interest else pick for pick in picks]
    text = json.dumps(reply)
    return Reply(text, usage=TokenUsage(estimated_tokens(*contents), estimated_tokens(text)))


def _topics(person: str) -> list[dict[str, object]]:
    """The most common words of the chosen items, and the choices that contain them."""
    choices = {int(number): _words(line) for number, line in _OPTION.findall(person)}
    counts = Counter(word for words in choices.values() for word in sorted(words))
    topics = [word for word, _ in counts.most_common(_TOPICS)] or ["anything"]
    return [
        {
            "topic": word,
            "weight": 100 // len(topics),
            "choices": [number for number, words in choices.items() if word in words][:10],
        }
        for word in topics
    ]


def _picks(options: str, person: str, most: int) -> list[dict[str, int]]:
    lines = {int(number): _words(line) for number, line in _OPTION.findall(options)}
    common = Counter(word for words in lines.values() for word in words)
    about = _words(person)
    scores = {
        number: sum(1 / common[word] for word in sorted(words & about))
        for number, words in lines.items()
    }
    best = max(scores.values(), default=0.0) or 1.0
    order = sorted(scores, key=lambda number: (-scores[number], number))[:most]
    return [{"n": number, "score": 10 + round(90 * scores[number] / best)} for number in order]


def _words(text: str) -> frozenset[str]:
    return frozenset(word.casefold() for word in _WORD.findall(text))
