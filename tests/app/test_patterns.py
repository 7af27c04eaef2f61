"""No text takes a pattern more than linear time: whoever writes it could stop the service."""

import importlib
import itertools
import pkgutil
import re
import time
from collections.abc import Iterator

import app
import prompts
import tree

_SHORT, _LONG = 1_000, 4_000  # characters; quadratic time takes 16 times as long for the longer
_CHEAP_S = 0.004  # what is quadratic takes ten times as long for the longer text
_MOST = 8.0  # times as long; 4 is linear

# Runs of these make patterns look at the same characters again and again.
_RUNS = [" ", "\t", "\n", "a", "1", "-", ".", ",", "{", "<", "<a", "a-", "1 ", "a ", "1\n", "|",
         "no ", "and ", "kein", "a, ", "1:1 ", "1: a\n", "1:a|", "::1", "unknown ", "temperature ",
         "['", "(", "* ", "é", "www.", ":/"]  # fmt: skip
_BEFORE = ["", "no a", "1", "1:", "1:a|", "1: a(", "{", "<", "unknown", "temperature ", "1::"]
_AFTER = ["", "x!\n"]


def test_patterns_take_linear_time():
    slow = []
    for name, pattern in _patterns():
        for before, run, after in itertools.product(_BEFORE, _RUNS, _AFTER):
            if _seconds(pattern, before, run, after, _LONG) < _CHEAP_S:
                continue
            times = [
                min(_seconds(pattern, before, run, after, length) for _ in range(3))
                for length in (_SHORT, _LONG)
            ]
            if times[1] > _MOST * times[0]:
                slow.append((name, before, run, after, times))
    assert slow == []


def _patterns() -> Iterator[tuple[str, re.Pattern]]:
    """All patterns that modules hold by a name."""
    seen = set()
    for package in (app, tree, prompts):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__") or "trained" in found.name:
                continue  # it would run, or needs an optional library
            for name, value in vars(importlib.import_module(found.name)).items():
                if isinstance(value, re.Pattern) and value not in seen:
                    seen.add(value)
                    yield f"{found.name}.{name}", value


def _seconds(pattern: re.Pattern, before: str, run: str, after: str, length: int) -> float:
    words = before + run * (length // len(run)) + after
    text = words.encode() if isinstance(pattern.pattern, bytes) else words
    began = time.thread_time()
    pattern.findall(text)
    return time.thread_time() - began
