"""Prompts read from Markdown: load, render, fingerprint."""

import re
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from importlib.resources import files
from string import Template
from typing import Literal, get_args

Perspective = Literal["interest", "relevance", "action", "recommendation"]
"""What the model is asked to judge by (UniLLMRec, Table 2)."""

PERSPECTIVES: tuple[Perspective, ...] = get_args(Perspective)

_HEADING = re.compile(r"^== (\w+) ==\n", re.MULTILINE)
_REQUIRED = frozenset({"system", "user"})
_TASK = "task_"


class PromptError(Exception):
    """A template and the code that fills it disagree: a programming mistake."""


@dataclass(frozen=True)
class Prompt:
    """One question to a model: a fixed system part and a user part with variables."""

    name: str
    system: str
    user: str
    variables: frozenset[str]
    fingerprint: str
    """Changes with every change of the wording; part of traces and cache keys."""

    @classmethod
    def parse(
        cls, name: str, text: str, perspective: Perspective = "interest", task: str = ""
    ) -> "Prompt":
        """The prompt in a template's text.

        Sections named after the perspectives hold the wording of `$perspective`: all four if the
        template uses it, none otherwise. A section `task_NAME` takes their place for that task.
        Raises PromptError for any other shape.
        """
        sections = _sections(name, text)
        wordings = {key: sections[key] for key in sections.keys() - _REQUIRED}
        tasks = {key: wordings.pop(key) for key in list(wordings) if key.startswith(_TASK)}
        system = _Part(name, "system", sections["system"])
        user = _Part(name, "user", sections["user"])
        perspectives = set(PERSPECTIVES) if "perspective" in system.names | user.names else set()
        if wordings.keys() != perspectives:
            raise PromptError(
                f"{name}: perspective sections {sorted(wordings)}, wanted {sorted(perspectives)}"
            )
        if stray := system.names - {"perspective"}:
            raise PromptError(f"{name}: the system part takes no variables: {sorted(stray)}")
        if tasks and not wordings:
            raise PromptError(f"{name}: wordings of tasks without perspectives: {sorted(tasks)}")
        wording = (
            {"perspective": tasks.get(_TASK + task, wordings[perspective])} if wordings else {}
        )
        spoken = system.template.substitute(wording)
        open_user = _bind(user.template, wording)
        return cls(
            name=name,
            system=spoken,
            user=open_user,
            variables=user.names - {"perspective"},
            fingerprint=_fingerprint(spoken, open_user),
        )

    def with_note(self, note: str) -> "Prompt":
        """The prompt with a note before the rest of its user part; itself without a note.

        A note is the same for all users, so that providers may cache the prefix. Text in it that
        looks like a variable stays as it is.
        """
        if not note:
            return self
        user = f"{note.replace('$', '$$')}\n\n{self.user}"
        return replace(self, user=user, fingerprint=_fingerprint(self.system, user))

    def render(self, **variables: str | int) -> tuple[str, str]:
        """The system and the user part, filled in.

        Values are inserted as they are: pass text of a catalogue or a person through `numbered` or
        `one_line`. Raises PromptError unless `variables` are exactly those of the template.
        """
        if variables.keys() != self.variables:
            missing = sorted(self.variables - variables.keys())
            unknown = sorted(variables.keys() - self.variables)
            raise PromptError(f"{self.name}: missing variables {missing}, unknown {unknown}")
        return self.system, Template(self.user).substitute(variables)


@cache
def load(name: str, perspective: Perspective = "interest", task: str = "") -> Prompt:
    """The prompt in `prompts/<name>.md`, worded for a perspective where it has several.

    Where it has words for the task, these take the place of the perspective's.

    Raises PromptError if there is no such template or its text is malformed.
    """
    if perspective not in PERSPECTIVES:
        raise PromptError(f"no perspective {perspective!r}; there are {', '.join(PERSPECTIVES)}")
    file = files(__package__).joinpath(f"{name}.md")
    if not name.isidentifier() or not file.is_file():
        raise PromptError(f"no template prompts/{name}.md")
    return Prompt.parse(name, file.read_text(encoding="utf-8"), perspective, task)


def phrase(name: str, **variables: str | int) -> str:
    """A short text of `prompts/phrases.md`, filled in: forms of reply, lines about a person.

    Raises PromptError for an unknown phrase, or unless `variables` are exactly those it has.
    """
    part = _phrases().get(name)
    if part is None:
        raise PromptError(f"no phrase {name!r} in prompts/phrases.md")
    if variables.keys() != part.names:
        raise PromptError(f"phrase {name}: wants {sorted(part.names)}, got {sorted(variables)}")
    return part.template.substitute(variables)


def fingerprints() -> dict[str, str]:
    """A hash of each template, with all its wordings, by name."""
    templates = (file for file in files(__package__).iterdir() if file.name.endswith(".md"))
    return {
        file.name.removesuffix(".md"): sha256(file.read_bytes()).hexdigest()[:12]
        for file in sorted(templates, key=lambda file: file.name)
    }


@cache
def _phrases() -> dict[str, "_Part"]:
    text = files(__package__).joinpath("phrases.md").read_text(encoding="utf-8")
    sections = _sections("phrases", text, required=frozenset())
    return {name: _Part("phrases", name, body) for name, body in sections.items()}


def _fingerprint(system: str, user: str) -> str:
    return sha256(f"{system}\0{user}".encode()).hexdigest()[:12]


class _Part:
    """A section with placeholders."""

    def __init__(self, name: str, section: str, text: str) -> None:
        self.template = Template(text)
        if not self.template.is_valid():
            raise PromptError(f"{name}: the {section} part has a stray $; write $$")
        self.names = frozenset(self.template.get_identifiers())


def _sections(name: str, text: str, required: frozenset[str] = _REQUIRED) -> dict[str, str]:
    before, *rest = _HEADING.split(text)
    if before.strip():
        raise PromptError(f"{name}: text before the first section")
    headings, bodies = rest[::2], [body.strip() for body in rest[1::2]]
    if len(set(headings)) != len(headings):
        raise PromptError(f"{name}: a section occurs twice: {headings}")
    sections = dict(zip(headings, bodies, strict=True))
    if absent := required - {heading for heading, body in sections.items() if body}:
        raise PromptError(f"{name}: no text in section {sorted(absent)}")
    return sections


def _bind(template: Template, wording: dict[str, str]) -> str:
    """The template's text with the perspective filled in and every other placeholder kept."""
    kept = {name: f"${{{name}}}" for name in template.get_identifiers()}
    # "$$" must survive this first round to be read as "$" in the second.
    return Template(template.template.replace("$$", "$$$$")).substitute(kept | wording)
