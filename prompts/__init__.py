"""What a model reads: one Markdown template per question, and how untrusted text gets into it.

A template says *what* to judge; the form of the reply (JSON, lines, one letter) is a phrase that
whoever asks adds to it. Its system part takes no variables, so text of a catalogue or a person
cannot get there; in the user part the slate comes before the person, so that hot slates share a
provider's prefix cache.
"""

from prompts.lines import numbered, one_line
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
    "PERSPECTIVES",
    "Perspective",
    "Prompt",
    "PromptError",
    "fingerprints",
    "load",
    "numbered",
    "one_line",
    "phrase",
]
