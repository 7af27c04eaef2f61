"""A stand-in for a model, which picks by shared words.

It reads the real prompts and answers in the form they ask for, so that what they cost can be
counted where no model is configured. How good a model would be it does not tell.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import cast

from app.llm import STAGES, Models, ReplyMode, StageModel
from app.llm.chat import JsonSchema, Reply, ScriptedChat, TokenUsage, Turn
from app.llm.tokens import estimated_tokens
from tree.store.documents import MemoryDocuments

_OPTION = re.compile(r"^(\d+)\. (.*)$", re.MULTILINE)
_WORD = re.compile(r"\w{3,}")
_TOPICS = 3

NAME = "word-overlap (stand-in)"


def stand_in() -> ScriptedChat:
    """A model for the reply mode `json_schema`. Its usage is counted as tokens are before a call.

    An option's mark is the number of words that it shares with the lines about the person, a
    word worth less the more options have it.
    """
    return ScriptedChat(_answer, NAME)


def models() -> Models:
    """The stand-in at every stage."""
    documents = MemoryDocuments()
    return Models(dict.fromkeys(STAGES, StageModel(stand_in())), documents, ReplyMode.JSON_SCHEMA)


def _answer(turn: Turn) -> Reply:
    if not isinstance(turn.form, JsonSchema):
        raise TypeError("the stand-in is asked in the reply mode json_schema only")
    asked = [message.content for message in turn.messages]
    options, _, person = asked[-1].partition("\n\n")
    fields = cast(Mapping[str, Mapping[str, int]], turn.form.schema["properties"])
    said: dict[str, object] = {}
    if "topics" in fields:
        listed = person if "picks" in fields else asked[-1]
        said |= {"topics": _topics(listed), "avoid": []}
    if "picks" in fields:
        wanted = fields["picks"]["maxItems"]
        items = cast(Mapping[str, Mapping[str, object]], fields["picks"]["items"])
        picks = _picks(options, person, wanted)
        apart = "for" in items["properties"]
        said["picks"] = [{**pick, "for": 1} if apart else pick for pick in picks]
    text = json.dumps(said)
    return Reply(text, usage=TokenUsage(estimated_tokens(*asked), estimated_tokens(text)))


def _topics(person: str) -> list[dict[str, object]]:
    """The most common words of what was chosen, and the choices that have them."""
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


def _picks(options: str, person: str, wanted: int) -> list[dict[str, int]]:
    lines = {int(number): _words(line) for number, line in _OPTION.findall(options)}
    common = Counter(word for words in lines.values() for word in words)
    about = _words(person)
    marks = {
        number: sum(1 / common[word] for word in sorted(words & about))
        for number, words in lines.items()
    }
    best = max(marks.values(), default=0.0) or 1.0
    order = sorted(marks, key=lambda number: (-marks[number], number))[:wanted]
    return [{"n": number, "score": 10 + round(90 * marks[number] / best)} for number in order]


def _words(text: str) -> frozenset[str]:
    return frozenset(word.casefold() for word in _WORD.findall(text))
