"""A real OpenAI-compatible server, llama.cpp, with a model of random weights or a given one.

Run as a script it serves the model named on the command line until its input closes.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

MODEL = "tiny"
SLOTS = 4
CONTEXT_TOKENS = 16_384  # of one slot

_START_S = 20
_THREADS = 1  # more wait for each other by spinning: on busy cores that took seconds
_CONNECTIONS = 64  # an idle one keeps its thread for 5 s: with too few, new ones wait that long
_WIDTH = 32
_HEADS = 1
_FEED_FORWARD = 64
_SCALE = 0.3
_BIAS, _LIKE, _DISLIKE = 2.0, 16.0, -20.0

_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "[{{ message.role }}]\n{{ message.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


@contextmanager
def serve(folder: Path, *what: Literal["embeddings"], model: Path | None = None) -> Iterator[str]:
    """The base URL of a server that runs until the block is left. Its log is in `folder`.

    It serves either chats or embeddings, by a `model` or by one of random weights.
    """
    log = folder / "llama.log"
    if model is None:
        model = folder / f"{MODEL}.gguf"
        write_model(model)
    pipe = subprocess.PIPE
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, __file__, str(model), *what], stdin=pipe, stdout=pipe, stderr=errors
        ) as process,
    ):
        assert process.stdout is not None
        too_late = threading.Timer(_START_S, process.kill)
        too_late.start()
        try:
            address = process.stdout.readline().decode().strip()
            too_late.cancel()
            assert address, f"llama.cpp did not start:\n{log.read_text()}"
            yield f"{address}/v1"
        finally:
            too_late.cancel()
            process.kill()


def write_model(path: Path) -> None:
    """Write a llama of one layer that reads any text and writes printable ASCII.

    The first component of its state is the same for every text. Through it the model avoids bytes
    and the backslash (llama.cpp answers 500 when a string in JSON is no UTF-8 or half a surrogate
    pair), and prefers what ends a string or an object.
    """
    import numpy as np
    from gguf import GGUFWriter

    tokens, kinds = _vocabulary()
    writer = GGUFWriter(path, "llama")
    writer.add_name(MODEL)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(rank) for rank in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(tokens.index("<unk>"))
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("</s>"))
    writer.add_chat_template(_CHAT_TEMPLATE)

    random = np.random.default_rng(0)

    def weights(rows: int, columns: int) -> np.ndarray:
        return random.normal(0, _SCALE, (rows, columns)).astype(np.float32)

    def blind(rows: int, columns: int) -> np.ndarray:
        matrix = weights(rows, columns)
        matrix[0] = 0
        return matrix

    embedding, output = weights(len(tokens), _WIDTH), weights(len(tokens), _WIDTH)
    embedding[:, 0] = _BIAS
    for row, token in enumerate(tokens):
        if token == "\\" or token.startswith("<0x"):
            output[row, 0] = _DISLIKE
        elif token in '"}':
            output[row] = 0
            output[row, 0] = _LIKE
        else:
            output[row, 0] = 0
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    for norm in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{norm}.weight", np.ones(_WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v"):
        writer.add_tensor(f"blk.0.{name}.weight", weights(_WIDTH, _WIDTH))
    for name in ("ffn_gate", "ffn_up"):
        writer.add_tensor(f"blk.0.{name}.weight", weights(_FEED_FORWARD, _WIDTH))
    writer.add_tensor("blk.0.attn_output.weight", blind(_WIDTH, _WIDTH))
    writer.add_tensor("blk.0.ffn_down.weight", blind(_WIDTH, _FEED_FORWARD))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary() -> tuple[list[str], list[int]]:
    from gguf import TokenType

    space, vowels, consonants = "▁", "aeiou", "bcdfghlmnprstvwy"
    control = ["<unk>", "<s>", "</s>"]
    kinds: list[int] = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    single = [space, *map(chr, range(ord("!"), ord("~") + 1))]
    double = [first + second for first in vowels for second in consonants]
    double += [second + first for first in vowels for second in consonants]
    double += [space + letter for letter in consonants]
    data = [f"<0x{byte:02X}>" for byte in range(256)]
    kinds += [TokenType.NORMAL] * len(single + double) + [TokenType.BYTE] * len(data)
    return [*control, *single, *double, *data], kinds


def _main(model: str, *what: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {MODEL}
    params.n_parallel = SLOTS
    params.n_ctx = CONTEXT_TOKENS * SLOTS
    params.cpuparams.n_threads = _THREADS
    params.cpuparams_batch.n_threads = _THREADS
    params.n_threads_http = _CONNECTIONS
    params.cache_ram_mib = 64
    params.ui = False
    if what:
        params.embedding = True
        params.n_parallel = 1  # several texts in one batch get other vectors than each alone
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _main(*sys.argv[1:])
