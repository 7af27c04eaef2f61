"""Whether a line is in another language than its catalogue."""

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# Of 6,086 English lines none has less than .4, of the same lines in German, French, Spanish and
# Russian nearly all have less than .01 (2026-12).
_UNLIKELY = 0.02
_LEAST_CHARS = 25  # fewer tell too little


def is_other_language(line: str, language: str) -> bool:
    """Whether a line is clearly not in this language. False for a language that is not known."""
    code = re.split("[-_]", language.strip().lower(), maxsplit=1)[0]
    if len(line) < _LEAST_CHARS:
        return False
    languages = _languages()
    if code not in languages.labels:
        return False
    if languages.classify(line)[0] == code:  # ten times as fast as all chances
        return False
    chances = dict(languages.rank(line))
    return float(chances.get(code, 0.0)) < _UNLIKELY


@cache
def _languages() -> "LanguageIdentifier":
    """Loaded at the first use: it takes half a second, and some memory."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
