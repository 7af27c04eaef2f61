"""The thoughts of a reasoning model, which come before its answer in the same text."""

import re

from app.llm.plain_json import UNREADABLE, decoded

# How thoughts begin and end. Names of tags, then what single families of models write:
# Magistral, Kimi, Cohere, gpt-oss (also with its special tokens removed) and Gemma.
_TAGS = "think|thinking|thought|thoughts|reasoning|reason|reflection|scratchpad|seed:think"
_BEGINNING = re.compile(
    rf"<(?:{_TAGS})>|\[THINK\]|◁think▷|<\|START_THINKING\|>|<\|begin_of_thought\|>"
    r"|(?:<\|start\|>assistant)?<\|channel\|?>\s?(?:analysis|commentary|thought)\b"
    r"|<unused94>\s?thought\b",
    re.IGNORECASE,
)
_END = re.compile(
    rf"</(?:{_TAGS})>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>|<\|end_of_thought\|>"
    r"|<\|channel\|>\s?final\b[^<\n]{0,20}(?:<\|constrain\|>[^<\n]{0,20})?<\|message\|>|<channel\|>|<unused95>",
    re.IGNORECASE,
)
_BARE_BEGINNING = re.compile(r"analysis(?=\S)")  # gpt-oss behind a server that drops the tokens
_BARE_END = re.compile(r"assistantfinal")
_AROUND = re.compile(
    r"<\|(?:return|end|START_RESPONSE|END_RESPONSE|begin_of_solution|end_of_solution|message"
    r"|begin_of_box|end_of_box|im_end|eot_id)\|>|</?(?:answer|response|output|final)>"
    r"|<\|channel\|>final|<\|start\|>assistant",
    re.IGNORECASE,
)
_FENCE = re.compile(r"```[a-z0-9]{0,10}|~~~")
_ROW = re.compile(r"[^\w\n]{0,8}\d{1,4}[^\w\n]{0,6}[:=.)|\[\u2013-]")  # "7: 85", "7 [tag]: line"


def answer_in(text: str) -> tuple[str, bool]:
    """The text without thoughts and special tokens, and whether there were thoughts.

    Thoughts that do not end leave no answer. An answer that is JSON from its first character is
    left as it is, so that words in it are never taken for marks.
    """
    start = text.lstrip("\ufeff \t\r\n")
    if start[:1] in ("", "{") or (start[0] == "[" and not _BEGINNING.match(start)):
        return text, False
    thought = False
    ends = list(_END.finditer(text))
    if not ends and _BARE_BEGINNING.match(start):
        ends = list(_BARE_END.finditer(text))
        if not ends:
            return "", True
    if ends:
        thought = True
        rest = text[ends[-1].end() :]
        text = rest if _said(rest) else _before(text)
    opened = _BEGINNING.search(text)
    if opened:  # it does not end
        thought = True
        text = text[: opened.start()]
    return _AROUND.sub("", text).strip(), thought


def _before(text: str) -> str:
    """What stands before the first thoughts, for a model that thinks after its answer."""
    opened = _BEGINNING.search(text)
    return text[: opened.start()] if opened else ""


def _said(text: str) -> bool:
    return bool(_AROUND.sub("", text).strip())


def holds_answer(thoughts: str) -> bool:
    """Whether thoughts end in a whole answer: JSON, or numbered lines.

    Some servers return a model's answer as its thoughts when it did not think.
    """
    text = _FENCE.sub("", thoughts).strip()
    if text[-1:] in ("}", "]"):
        return _ends_in_json(text)
    rows = text.rpartition("\n\n")[2].splitlines()
    return bool(rows) and all(_ROW.match(row) for row in rows if row.strip())


def _ends_in_json(text: str) -> bool:
    """Whether the last lines are JSON, from a line that begins with a bracket."""
    starts = [0, *(found.end() for found in re.finditer(r"\n", text))]
    tried = 0
    for start in reversed(starts):
        if text[start : start + 1] in ("{", "[") and tried < 8:
            tried += 1
            try:
                decoded(text[start:])
            except UNREADABLE:
                continue
            return True
    return False
