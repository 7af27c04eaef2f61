"""What a model reads: one Markdown template per question, and untrusted text as lines of it.

A template says *what* to judge; the caller adds a phrase for the form of the reply (JSON, lines,
one letter). The system part takes no variables, so text of a catalogue or a person cannot get
there. In the user part the slate comes before the person, so that frequent slates share a
provider's prefix cache.
"""

from prompts.lines import LINE_CHARS, both_ends, numbered, one_line
from prompts.owner import GUIDANCE_CHARS, OBJECTIVE_CHARS, owner_note
from prompts.template import (
    PERSPECTIVES,
    Perspective,
    Prompt,
    PromptError,
    fingerprints,
    load,
    phrase,
)

__all__ = [
    "GUIDANCE_CHARS",
    "LINE_CHARS",
    "OBJECTIVE_CHARS",
    "PERSPECTIVES",
    "Perspective",
    "Prompt",
    "PromptError",
    "both_ends",
    "fingerprints",
    "load",
    "numbered",
    "one_line",
    "owner_note",
    "phrase",
]
