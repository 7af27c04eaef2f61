"""Training of a network, limited in epochs and seconds, with early stopping."""

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

NEWEST = 50  # items of a history that are used, as in the paper

_BATCH = 128
# An epoch over small data repeats them, because held-out users are few: SASRec reached .055 R@20 on
# 671 users with epochs of 25 batches and a patience of 4, and .136 with five times that.
_MIN_BATCHES = 100  # of an epoch
_HELD_OUT_SHARE, _HELD_OUT_MOST = 0.1, 1_000
_PATIENCE = 5  # epochs without improvement
_NEGATIVES = 1_024  # per batch, drawn evenly over the catalogue
_LEARNING_RATE = 1e-3
_SCORED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """The upper limits of training."""

    epochs: int
    seconds: float


class Network(nn.Module, ABC):
    """Scores items for users. A user is a history, padded on the right: int64[b, t].

    Item 0 is the padding; item n is row n - 1 of the catalogue.
    """

    @abstractmethod
    def prepare(self) -> None:
        """Called before scoring, after which the weights do not change for a while."""

    @abstractmethod
    def scores(self, histories: Tensor) -> Tensor:
        """float32[b, items], without the padding."""

    @abstractmethod
    def loss(self, histories: Tensor, negatives: Tensor) -> Tensor:
        """The mean loss of predictions from these histories: int64[b, t], int64[n]."""


def begin(seed: int) -> None:
    """Seed torch and limit it to one thread.

    With one thread, results do not depend on the number of cores, and training is 25 times as fast
    as with four threads where other processes use the cores (FM on 9k films, November 2026).
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
    """Train with Adam and restore the best epoch. Returns the number of epochs.

    After each epoch, the network is measured by the mean of 1 / log2(1 + rank) of the last item of
    held-out users (NDCG without a cutoff, which also distinguishes bad networks). Training ends
    after five epochs without improvement.
    """
    generator = np.random.default_rng(seed)
    usable = [history for history in histories if len(history) > 1]
    order = generator.permutation(len(usable))
    held_out_count = min(_HELD_OUT_MOST, max(1, round(_HELD_OUT_SHARE * len(usable))))
    held_out = [usable[at] for at in order[:held_out_count]]
    training = [usable[at] for at in order[held_out_count:]]
    if not training:
        network.eval()
        return 0
    items = int(network.scores(_padded([held_out[0][:-1]])).shape[1])
    optimiser = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    ends = time.monotonic() + limits.seconds
    best, best_at, state = -1.0, 0, copy.deepcopy(network.state_dict())
    epoch = 0
    while epoch < limits.epochs and epoch - best_at < _PATIENCE and time.monotonic() < ends:
        epoch += 1
        network.train()
        rounds = -(-_MIN_BATCHES * _BATCH // len(training))
        batches = [one for _ in range(rounds) for one in _batches(training, generator)]
        for number, batch in enumerate(batches):
            negatives = torch.from_numpy(generator.integers(1, items + 1, _NEGATIVES))
            optimiser.zero_grad()
            loss = network.loss(_padded(batch), negatives)
            loss.backward()
            optimiser.step()
            if time.monotonic() >= ends:
                break
            progress((epoch - 1 + number / len(batches)) / limits.epochs)
        found = _ndcg(network, held_out)
        if found > best:
            best, best_at, state = found, epoch, copy.deepcopy(network.state_dict())
    network.load_state_dict(state)
    network.eval()
    progress(1.0)
    return epoch


def scores(network: Network, histories: Sequence[list[int]]) -> npt.NDArray[np.float32]:
    """float32[histories, items]. No history may be empty."""
    network.eval()
    starts = range(0, len(histories), _SCORED_AT_ONCE)
    parts = [_padded(histories[start : start + _SCORED_AT_ONCE]) for start in starts]
    with torch.inference_mode():
        network.prepare()
        return torch.cat([network.scores(part) for part in parts]).numpy()


def _ndcg(network: Network, held_out: Sequence[list[int]]) -> float:
    predicted = scores(network, [history[:-1] for history in held_out])
    gain = 0.0
    for row, history in zip(predicted, held_out, strict=True):
        target = row[history[-1]]
        row[history[:-1]] = -np.inf
        rank = int((row > target).sum())
        gain += 1 / np.log2(rank + 2)
    return gain / len(held_out)


def _batches(
    histories: Sequence[list[int]], generator: np.random.Generator
) -> list[list[list[int]]]:
    """Batches of histories of similar length, in random order."""
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
