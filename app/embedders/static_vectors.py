"""`StaticVectors`: a vector for every token, which knows what words mean without a model's run.

The table is that of WordLlama (MIT; https://github.com/dleemiller/WordLlama): the token embeddings
of large language models, trained on for similarity and reduced to 256 dimensions. Table and
tokenizer are files of the package; its code, which would fetch them, is not used.
"""

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tree.errors import EmbedderUnusable
from tree.item import normalise
from tree.vectors import FloatArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_PACKAGE = "wordllama"
_TABLE = Path("weights", "l2_supercat_256.safetensors")
_TOKENIZER = Path("tokenizers", "l2_supercat_tokenizer_config.json")


class StaticVectors:
    """The table and its tokens."""

    def __init__(self) -> None:
        """Raises EmbedderUnusable where the package or its files are missing."""
        try:
            from safetensors.numpy import load
            from tokenizers import Tokenizer

            spec = find_spec(_PACKAGE)
            if spec is None or not spec.submodule_search_locations:
                raise ImportError(f"no module named {_PACKAGE!r}")
            folder = Path(next(iter(spec.submodule_search_locations)))
            content = (folder / _TABLE).read_bytes()
            (table,) = load(content).values()
            tokens = (folder / _TOKENIZER).read_bytes()
            self._tokenizer = Tokenizer.from_buffer(tokens)
        except (ImportError, OSError, ValueError) as error:
            raise EmbedderUnusable(
                f"the hybrid embedder lacks a library: {error}; install the packages of "
                "requirements.lock"
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.table: FloatArray = table.astype(np.float32)
        self.digest = sha256(content + tokens).hexdigest()[:16]

    def damped_counts(self, texts: Sequence[str]) -> "csr_matrix":
        """How often each token occurs, damped to 1 + ln(count): float32[len(texts), tokens]."""
        from scipy.sparse import csr_matrix

        plain = [normalise(text) for text in texts]
        ids = [
            one.ids for one in self._tokenizer.encode_batch_fast(plain, add_special_tokens=False)
        ]
        row = np.repeat(np.arange(len(texts), dtype=np.int64), list(map(len, ids)))
        found = np.fromiter(chain.from_iterable(ids), np.int64, len(row)) + row * len(self.table)
        found.sort()
        first = np.flatnonzero(np.diff(found, prepend=-1))
        times = np.diff(first, append=len(found))
        ends = np.searchsorted(found[first], np.arange(len(texts) + 1) * len(self.table))
        return csr_matrix(
            (
                (1 + np.log(times)).astype(np.float32),
                (found[first] % len(self.table)).astype(np.int32),
                ends.astype(np.int32),
            ),
            (len(texts), len(self.table)),
        )


@cache
def static_vectors() -> StaticVectors:
    """The table, opened at the first use: 32 MB."""
    return StaticVectors()
