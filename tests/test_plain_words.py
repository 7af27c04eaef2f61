"""Words that made the code hard to read do not come back, and a name stands for one thing."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

# A private word, and what to say instead. Only words without any other good use than GOOD_USES.
WORDS = {
    r"readers?": "user",
    r"sharpness": "inverse temperature",
    r"facets?|compass(es)?": "centroid",
    r"shel(f|ves)": "branch, leaf, node",
    r"harvest(s|ed|er)?|crop(s|ped)?": "the columns of a build",
    r"purse|patrol(s|led)?|pulse": "budget, housekeep, heartbeat",
    r"patiently|at leisure": "encode_batch, or how long it may take",
    r"whoever": "a caller, a client, a process",
    r"such as (did|do|does|has|have|was|were|is|are)": "those that …",
    r"what (becomes )?of (it|them|this|that)|of all that": "the thing itself",
    r"but for (what|those|the|a|one|its|their)": "except, without",
    r"(is|are) told (of|that|to|what|so)": "gets, is given, logs",
    r"has come to|goes? on without|no more (of|than) that": "a plain verb",
}
# Good uses of these words, each with its reason. They are cut out before a line is searched.
GOOD_USES = {
    r"csv\.reader|\b[a-z_]+_reader|[A-Z]\w+Reader|\breader( =|\.)": "reads a file or a stream",
    r"readers need no lock|number of readers|readers?( and|,) writers?": "code that reads a store",
    r"UNILLMREC_SHARPNESS|settings\.sharpness|\bsharpness: float": "the setting keeps its name",
    r"--readers|\"readers\"|`readers`": "what `--users` was, and a field of results",
    r"\"reader\"|:reader:": "keys in the store, as older releases have written them",
}
_FOLDERS = {"app": (".py", ".html"), "tree": (".py",), "prompts": (".py",), "docs": (".md",)}
_DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")

_WORD = re.compile("|".join(rf"\b({word})\b" for word in WORDS), re.IGNORECASE)
_GOOD_USE = re.compile("|".join(GOOD_USES))
_CLASS = re.compile(r"^class (\w+)", re.MULTILINE)


def texts() -> Iterator[Path]:
    """Code and documents for people. Templates of prompts are for models, and left out."""
    for folder, suffixes in _FOLDERS.items():
        yield from (path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes)
    yield from (ROOT / name for name in _DOCUMENTS)


def private_words(text: str) -> list[str]:
    return [found[0] for found in _WORD.finditer(_GOOD_USE.sub(" ", text))]


def instead_of(word: str) -> str:
    [says] = [say for own, say in WORDS.items() if re.fullmatch(own, word, re.IGNORECASE)]
    return says


def test_private_words_do_not_come_back():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {word!r}; say: {instead_of(word)}"
        for path in sorted(texts())
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for word in private_words(line)
    ]
    assert not found, "\n".join(found)


def test_the_list_tells_private_words_from_good_uses():
    assert private_words("Whoever asks, the readers wait") == ["Whoever", "readers"]
    assert private_words("for row in csv.reader(file): settings.sharpness") == []
    assert private_words("all of it, but for the first") == ["but for the"]
    assert private_words("a cropped reading of what follows") == ["cropped"]


def test_a_class_name_stands_in_one_module():
    modules = defaultdict(list)
    for path in texts():
        for name in _CLASS.findall(path.read_text(encoding="utf-8")):
            modules[name].append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in modules.items() if len(where) > 1} == {}
