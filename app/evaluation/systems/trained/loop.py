"""How a network is trained: bounded in epochs and seconds, stopped when it gets no better."""

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

NEWEST = 50  # items of a history that are looked at, as in the paper

_BATCH = 128
# Small data are gone through many times, and held-out readers are few: SASRec ended at .055 R@20
# on 671 readers with epochs of 25 batches and a patience of 4, at .136 with five times that.
_ROUND = 100  # batches of an epoch at least
_HELD_OUT_SHARE, _HELD_OUT_MOST = 0.1, 1_000
_PATIENCE = 5  # epochs without a better one
_NEGATIVES = 1_024  # per batch, drawn evenly over the catalogue
_LEARNING_RATE = 1e-3
_SCORED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """When training ends at the latest."""

    epochs: int
    seconds: float


class Network(nn.Module, ABC):
    """Scores items for readers, each a right-padded row of their history: int64[b, t].

    Item 0 is the padding; item n is row n - 1 of the catalogue.
    """

    @abstractmethod
    def prepare(self) -> None:
        """Called before scoring, when the weights stay as they are for a while."""

    @abstractmethod
    def scores(self, histories: Tensor) -> Tensor:
        """float32[b, items]: of all items but the padding."""

    @abstractmethod
    def loss(self, histories: Tensor, negatives: Tensor) -> Tensor:
        """The mean loss over what can be asked of these histories: int64[b, t], int64[n]."""


def begin(seed: int) -> None:
    """From here on, all that is random in torch follows from the seed.

    One thread: the same bits whatever the number of cores, and 25 times as fast as four threads
    where other processes use the cores (FM on 9k films, November 2026).
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)


def train(
    network: Network,
    histories: Sequence[list[int]],
    limits: Limits,
    seed: int,
    progress: Callable[[float], None],
) -> int:
    """Train with Adam; the network ends as it was after its best epoch. Epochs that were run.

    After every epoch the mean of 1 / log2(1 + rank) of the last item of held-out readers is taken
    (NDCG without a cut, which tells something of bad networks too); after five epochs without a
    better one training ends.
    """
    generator = np.random.default_rng(seed)
    usable = [history for history in histories if len(history) > 1]
    order = generator.permutation(len(usable))
    held = min(_HELD_OUT_MOST, max(1, round(_HELD_OUT_SHARE * len(usable))))
    checked = [usable[at] for at in order[:held]]
    learned = [usable[at] for at in order[held:]]
    if not learned:
        network.eval()
        return 0
    items = int(network.scores(_padded([checked[0][:-1]])).shape[1])
    optimiser = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    ends = time.monotonic() + limits.seconds
    best, best_at, kept = -1.0, 0, copy.deepcopy(network.state_dict())
    epoch = 0
    while epoch < limits.epochs and epoch - best_at < _PATIENCE and time.monotonic() < ends:
        epoch += 1
        network.train()
        rounds = -(-_ROUND * _BATCH // len(learned))
        batches = [one for _ in range(rounds) for one in _batches(learned, generator)]
        for number, batch in enumerate(batches):
            negatives = torch.from_numpy(generator.integers(1, items + 1, _NEGATIVES))
            optimiser.zero_grad()
            loss = network.loss(_padded(batch), negatives)
            loss.backward()
            optimiser.step()
            if time.monotonic() >= ends:
                break
            progress((epoch - 1 + number / len(batches)) / limits.epochs)
        found = _ndcg(network, checked)
        if found > best:
            best, best_at, kept = found, epoch, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    network.eval()
    progress(1.0)
    return epoch


def scores(network: Network, histories: Sequence[list[int]]) -> npt.NDArray[np.float32]:
    """float32[histories, items], of histories that are not empty."""
    network.eval()
    starts = range(0, len(histories), _SCORED_AT_ONCE)
    parts = [_padded(histories[start : start + _SCORED_AT_ONCE]) for start in starts]
    with torch.inference_mode():
        network.prepare()
        return torch.cat([network.scores(part) for part in parts]).numpy()


def _ndcg(network: Network, checked: Sequence[list[int]]) -> float:
    marks = scores(network, [history[:-1] for history in checked])
    gain = 0.0
    for row, history in zip(marks, checked, strict=True):
        target = row[history[-1]]
        row[history[:-1]] = -np.inf
        rank = int((row > target).sum())
        gain += 1 / np.log2(rank + 2)
    return gain / len(checked)


def _batches(
    histories: Sequence[list[int]], generator: np.random.Generator
) -> list[list[list[int]]]:
    """Histories of about one length together, the batches in another order every time."""
    noisy = [len(history) + generator.random() for history in histories]
    order = np.argsort(noisy)
    starts = range(0, len(order), _BATCH)
    batches = [[histories[at] for at in order[start : start + _BATCH]] for start in starts]
    return [batches[at] for at in generator.permutation(len(batches))]


def _padded(histories: Sequence[list[int]]) -> Tensor:
    """int64[len(histories), the longest]: the newest items of each, oldest first, then zeros."""
    width = min(NEWEST, max(map(len, histories)))
    padded = np.zeros((len(histories), width), np.int64)
    for row, history in zip(padded, histories, strict=True):
        newest = history[-width:]
        row[: len(newest)] = newest
        row[: len(newest)] += 1
    return torch.from_numpy(padded)
