"""A model that answers every question of the chain, in the form that is asked for.

Its taste depends on titles alone and on nothing that vectors know, so the order of an answer tells
whether the model made it.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeAlias
from zlib import crc32

Json: TypeAlias = dict[str, Any]

_NUMBERED = re.compile(r"^(\d{1,3})\. (.+)$")
_WANTED = re.compile(r"at most (\d+)")
_TAGGED = re.compile(r"\[([^\]]+)\] (.+)")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and a draft of it in which the worst comes first.

    `value` and `draft_value` are None where lines are asked for and not JSON.
    """

    text: str
    draft: str
    value: Json | None
    draft_value: Json | None


def taste(line: str) -> int:
    """0 … 100: how much the model likes an item or a branch that has this line."""
    return crc32(line.split(" — ", maxsplit=1)[0].strip().encode()) % 101


def answer_to(body: Json) -> Answer:
    """The answer to a request for a chat."""
    prompt = "\n\n".join(_text(message) for message in body["messages"])
    lists = list(_lists(prompt))
    if not any(form in prompt for form in ('{"n"', '"topics"', '{"titles"')):
        return _in_lines(prompt, lists)
    good: Json = {}
    bad: Json = {}
    if '"topics"' in prompt:
        good |= _topics(lists[-1] if lists else [])
        bad |= {"topics": [{"topic": "draft", "weight": 1, "choices": []}], "avoid": []}
    if '{"titles"' in prompt:
        good["titles"], bad["titles"] = ["More of what they chose before"], ["draft"]
    if '"picks"' in prompt:
        picks = _picks(prompt, lists[0])
        good["picks"], bad["picks"] = picks, _reversed(picks)
    if '"signs"' in prompt:
        good["signs"], bad["signs"] = _signs(lists[0]), []
    if '"lines"' in prompt:
        good["lines"], bad["lines"] = _lines(lists[-1]), []
    return Answer(json.dumps(good), json.dumps(bad), good, bad)


def _in_lines(prompt: str, lists: Sequence[Sequence[str]]) -> Answer:
    if "one line per topic" in prompt:
        found = _topics(lists[-1] if lists else [])["topics"]
        rows = [f"{t['weight']}: {t['topic']} ({', '.join(map(str, t['choices']))})" for t in found]
        return Answer("\n".join(rows), "1: draft", None, None)
    if "titles of" in prompt and "one on each line" in prompt:
        return Answer("More of what they chose before\nSomething new", "draft", None, None)
    if "vertical bar" in prompt:
        rows = [f"{s['n']}: {s['title']} | {s['signpost']}" for s in _signs(lists[0])]
        return Answer("\n".join(rows), "", None, None)
    if "its tag in brackets" in prompt:
        rows = [f"{one['n']} [{one['tag']}]: {one['line']}" for one in _lines(lists[-1])]
        return Answer("\n".join(rows), "", None, None)
    picks = _picks(prompt, lists[0])
    return Answer(_rows(picks), _rows(_reversed(picks)), None, None)


def _rows(picks: Sequence[Json]) -> str:
    return "\n".join(
        f"{pick['n']}: {pick['score']}" + (f" ({pick['for']})" if "for" in pick else "")
        for pick in picks
    )


def _text(message: Json) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content)


def _lists(prompt: str) -> list[list[str]]:
    """The numbered lists of a prompt, each counted from 1."""
    found: list[list[str]] = []
    for line in prompt.splitlines():
        numbered = _NUMBERED.match(line)
        if numbered and numbered[1] == "1":
            found.append([numbered[2]])
        elif numbered and found and int(numbered[1]) == len(found[-1]) + 1:
            found[-1].append(numbered[2])
    return found


def _picks(prompt: str, options: Sequence[str]) -> list[Json]:
    wanted = _WANTED.search(prompt)
    order = sorted(range(len(options)), key=lambda at: -taste(options[at]))
    by_interest = '"for"' in prompt or "in brackets the number of the interest" in prompt
    return [
        {
            "n": at + 1,
            "score": 10 + round(0.9 * taste(options[at])),
            **({"for": 1} if by_interest else {}),
        }
        for at in order[: int(wanted[1]) if wanted else len(order)]
    ]


def _reversed(picks: Sequence[Json]) -> list[Json]:
    """The same numbers with the scores the other way round."""
    scores = [pick["score"] for pick in reversed(picks)]
    return [{**pick, "score": score} for pick, score in zip(picks, scores, strict=True)]


def _topics(choices: Sequence[str]) -> Json:
    named = {"topic": "things they chose before", "weight": 100}
    return {"topics": [{**named, "choices": list(range(1, len(choices) + 1))}], "avoid": []}


def _signs(groups: Sequence[str]) -> list[Json]:
    return [
        {"n": at, "title": f"Group of {_word(group)}", "signpost": f"All about {_word(group)}"}
        for at, group in enumerate(groups, 1)
    ]


def _lines(items: Sequence[str]) -> list[Json]:
    tagged = [(at, _TAGGED.match(item)) for at, item in enumerate(items, 1)]
    return [
        {"n": at, "tag": found[1], "line": f"{found[2].split(' — ')[0]} for people who like it"}
        for at, found in tagged
        if found
    ]


def _word(text: str) -> str:
    return "".join(takewhile(str.isalpha, text)) or "things"


Writing: TypeAlias = Callable[[Answer], str]
