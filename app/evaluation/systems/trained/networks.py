"""The networks: SASRec by cornac; NRMS, FM and DeepFM of our own, as no library fits.

cornac's FM identifies users by their ids only, so it cannot score a new user; RecBole 1.2 and
RecTools 0.19 need NumPy 1 (November 2026); the NRMS of `recommenders` needs TensorFlow.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.evaluation.systems.trained.loop import NEWEST, Network
from tree.item import Item, normalise

if TYPE_CHECKING:
    from app.evaluation.systems.trained import Architecture

_WORD = re.compile(r"\w+")
_WORDS = 30_000
_TITLE_WORDS = 20
_WIDTH = 64
_HEADS = 4
_DROPOUT = 0.2
_FIELDS = 3  # of an item, for the factorisation machines: itself, its category, its domain
_SCORED_AT_ONCE = 2_048


def network_of(architecture: "Architecture", items: Sequence[Item]) -> Network:
    """An untrained network over a catalogue."""
    match architecture:
        case "sasrec":
            return SasRec(len(items))
        case "nrms":
            return Nrms(_titles(items))
        case "fm":
            return FactorisationMachine(_fields(items), deep=False)
        case "deepfm":
            return FactorisationMachine(_fields(items), deep=True)


class SasRec(Network):
    """Self-attentive sequential recommendation (Kang & McAuley 2018): the network of cornac.

    Trained on the next item at each position of a history at once, with a softmax over that item
    and shared negatives (Klenitskiy & Vasilev 2023 found it to beat the published loss).
    """

    def __init__(self, items: int) -> None:
        super().__init__()
        from cornac.models.sasrec.sasrec import SASRecModel

        self._model = SASRecModel(
            items + 1,
            embedding_dim=_WIDTH,
            maxlen=NEWEST,
            n_layers=2,
            n_heads=1,
            use_biases=False,
            dropout=_DROPOUT,
            pad_idx=0,
        )
        self._states = torch.zeros(0)
        # The model returns the last position only; the hook gets all from its last layer.
        self._model.last_layernorm.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: object, states: Tensor) -> None:
        self._states = states

    def prepare(self) -> None:
        """See Network."""

    def _read(self, histories: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """float[b, t, width] and float[items, width]."""
        _, vectors, _ = self._model(None, histories, items, return_hidden=True)
        return self._states, vectors

    def scores(self, histories: Tensor) -> Tensor:
        """See Network."""
        items = torch.arange(1, self._model.item_num)
        states, vectors = self._read(histories, items)
        last = (histories > 0).sum(dim=1) - 1
        return states[torch.arange(len(histories)), last] @ vectors.T

    def loss(self, histories: Tensor, negatives: Tensor) -> Tensor:
        """See Network."""
        states, vectors = self._read(histories[:, :-1], negatives)
        following = histories[:, 1:]
        has_target = following > 0
        targets = following[has_target]
        positive = self._model.item_emb(targets)
        return _softmax_loss(states[has_target], positive, vectors, targets, negatives)


class _Attentive(nn.Module):
    """Multi-head self-attention, then one vector by additive attention (Wu et al. 2019, §2)."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(_WIDTH, _HEADS, batch_first=True)
        self.query = nn.Sequential(
            nn.Linear(_WIDTH, _WIDTH), nn.Tanh(), nn.Linear(_WIDTH, 1, bias=False)
        )
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, values: Tensor, empty: Tensor) -> Tensor:
        """float[b, width] of float[b, t, width]; `empty`: bool[b, t], no row all true."""
        values = self.dropout(values)
        read, _ = self.attention(values, values, values, key_padding_mask=empty, need_weights=False)
        scores = self.query(self.dropout(read)).squeeze(-1).masked_fill(empty, -torch.inf)
        return (scores.softmax(dim=1).unsqueeze(-1) * read).sum(dim=1)


class Nrms(Network):
    """Neural news recommendation with multi-head self-attention (Wu et al. 2019), over title words.

    Word vectors are learned; the paper's GloVe vectors would have to be downloaded.
    """

    def __init__(self, titles: Tensor) -> None:
        super().__init__()
        self.register_buffer("titles", titles, persistent=False)
        self.titles: Tensor
        self.words = nn.Embedding(int(titles.max()) + 1, _WIDTH, padding_idx=0)
        nn.init.normal_(self.words.weight, std=0.1)
        self.item = _Attentive()
        self.user = _Attentive()
        self._vectors = torch.zeros(0)

    def prepare(self) -> None:
        """See Network."""
        parts = self.titles.split(_SCORED_AT_ONCE)
        self._vectors = torch.cat([self._encoded(part) for part in parts])

    def _encoded(self, titles: Tensor) -> Tensor:
        return self.item(self.words(titles), titles == 0)

    def scores(self, histories: Tensor) -> Tensor:
        """See Network."""
        if not len(self._vectors):
            self.prepare()
        return self.user(self._vectors[histories], histories == 0) @ self._vectors[1:].T

    def loss(self, histories: Tensor, negatives: Tensor) -> Tensor:
        """See Network."""
        before, targets = _cut(histories)
        needed, where = torch.unique(
            torch.cat([before.flatten(), targets, negatives]), return_inverse=True
        )
        vectors = self._encoded(self.titles[needed])[where]
        seen, target, others = vectors.split([before.numel(), len(targets), len(negatives)])
        users = self.user(seen.view(*before.shape, -1), before == 0)
        return _softmax_loss(users, target, others, targets, negatives)


class FactorisationMachine(Network):
    """FM (Rendle 2010), or DeepFM (Guo et al. 2017) with a perceptron over the same embeddings.

    Fields: id, category and domain of the item, and the mean of the same three over the user's
    history, with separate embeddings.
    """

    def __init__(self, fields: Tensor, *, deep: bool) -> None:
        super().__init__()
        self.register_buffer("fields", fields, persistent=False)
        self.fields: Tensor
        size = int(fields.max()) + 1
        self.offered = nn.Embedding(size, _WIDTH, padding_idx=0)
        self.had = nn.Embedding(size, _WIDTH, padding_idx=0)
        self.weight = nn.Embedding(size, 1, padding_idx=0)
        nn.init.normal_(self.offered.weight, std=0.05)
        nn.init.normal_(self.had.weight, std=0.05)
        nn.init.zeros_(self.weight.weight)
        self.deep = deep
        if deep:
            self.from_user = nn.Linear(_FIELDS * _WIDTH, _WIDTH)
            self.from_item = nn.Linear(_FIELDS * _WIDTH, _WIDTH, bias=False)
            self.rest = nn.Sequential(
                nn.ReLU(), nn.Dropout(_DROPOUT), nn.Linear(_WIDTH, 1, bias=False)
            )

    def prepare(self) -> None:
        """See Network."""

    def scores(self, histories: Tensor) -> Tensor:
        """See Network."""
        users = self._users(histories)
        parts = torch.arange(1, len(self.fields)).split(_SCORED_AT_ONCE)
        return torch.cat([self._scores(users, part) for part in parts], dim=1)

    def loss(self, histories: Tensor, negatives: Tensor) -> Tensor:
        """See Network."""
        before, targets = _cut(histories)
        users = self._users(before)
        positive = self._scores(users, targets, paired=True)
        others = self._scores(users, negatives)
        others = others.masked_fill(targets[:, None] == negatives, -torch.inf)
        return _first_of(torch.cat([positive[:, None], others], dim=1))

    def _users(self, histories: Tensor) -> Tensor:
        """float[b, fields, width]: the mean of each field over the history."""
        counts = (histories > 0).sum(dim=1).clamp(min=1)
        return self.had(self.fields[histories]).sum(dim=1) / counts[:, None, None]

    def _scores(self, users: Tensor, items: Tensor, *, paired: bool = False) -> Tensor:
        """float[b, items]; or float[b], one item per user, when `paired`."""
        fields = self.fields[items]
        vectors = self.offered(fields)
        of_user, of_item = users.sum(dim=1), vectors.sum(dim=1)
        # Pairs of fields: within the item, and of item and user. Pairs within the user are the same
        # for all items.
        inside = (of_item.square() - vectors.square().sum(dim=1)).sum(dim=-1) / 2
        alone = self.weight(fields).sum(dim=(1, 2)) + inside
        scores = alone + ((of_user * of_item).sum(dim=-1) if paired else of_user @ of_item.T)
        if self.deep:
            left = self.from_user(users.flatten(1))
            right = self.from_item(vectors.flatten(1))
            hidden = left + right if paired else left[:, None] + right
            scores = scores + self.rest(hidden).squeeze(-1)
        return scores


def _softmax_loss(
    users: Tensor, positive: Tensor, others: Tensor, targets: Tensor, negatives: Tensor
) -> Tensor:
    """Cross-entropy of the target items, float[b, width], against the negatives."""
    scores = (users @ others.T).masked_fill(targets[:, None] == negatives, -torch.inf)
    return _first_of(torch.cat([(users * positive).sum(dim=1, keepdim=True), scores], dim=1))


def _first_of(scores: Tensor) -> Tensor:
    return functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))


def _cut(histories: Tensor) -> tuple[Tensor, Tensor]:
    """Each history up to a random position, and the item there: int64[b, t], int64[b]."""
    lengths = (histories > 0).sum(dim=1)
    places = 1 + (torch.rand(len(histories)) * (lengths - 1)).long()
    before = histories.masked_fill(torch.arange(histories.shape[1]) >= places[:, None], 0)
    return before, histories[torch.arange(len(histories)), places]


def _titles(items: Sequence[Item]) -> Tensor:
    """int64[1 + items, words]: the frequent words of each title; 1 stands for other words."""
    texts = [_WORD.findall(item.title.lower())[:_TITLE_WORDS] for item in items]
    common = Counter(word for words in texts for word in words).most_common(_WORDS)
    number = {word: at for at, (word, count) in enumerate(common, 2) if count > 1}
    table = torch.zeros(1 + len(items), _TITLE_WORDS, dtype=torch.long)
    table[:, 0] = 1  # attention over no word is nan
    for row, words in enumerate(texts, 1):
        for column, word in enumerate(words):
            table[row, column] = number.get(word, 1)
    return table


def _fields(items: Sequence[Item]) -> Tensor:
    """int64[1 + items, fields], each field with its own range of numbers; row 0 is the padding."""
    number: dict[tuple[str, str], int] = {}
    rows = [[0] * _FIELDS]
    for item in items:
        names = (
            ("item", item.id),
            ("category", "\0".join(map(normalise, item.categories))),
            ("domain", normalise(item.domain)),
        )
        rows.append([number.setdefault(name, 1 + len(number)) for name in names])
    return torch.tensor(rows)
