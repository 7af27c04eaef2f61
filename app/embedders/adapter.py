"""`Adapter`: a linear map of vectors that a catalogue's own events have taught."""

from collections.abc import Sequence

import msgspec
import numpy as np

from tree.passage import Text
from tree.vectors import FloatArray, Int8Matrix, quantise, unit_rows

# Of the mean variance of a dimension. With .001 the first 20 of a wish are nearly what they were,
# but its cosines shrink to .6 of what they were and less, so that a history outweighs it; with 1, a
# fifth of them falls behind the first 100 (games, mix .8). With .2, cosines keep .8, and 96 % stay.
_RIDGE = 0.2


class Adapter(msgspec.Struct, frozen=True, array_like=True):
    """What becomes of the vectors of one space: a map for items, another one for wishes.

    The map of the wishes undoes that of the items: a wish ranks the changed vectors as it would
    rank the unchanged ones. What users do next tells which items go together, and nothing about
    the words that people use for what they want.
    """

    dimensions: int
    items: bytes  # float16[dimensions, dimensions]
    wishes: bytes  # the same

    @classmethod
    def of(cls, items: FloatArray, vectors: FloatArray) -> "Adapter":
        """The adapter with this map for items; `vectors` are those of the catalogue, before."""
        kept = items.astype(np.float16)
        after = unit_rows(vectors @ kept.astype(np.float32))
        gram = after.T @ after
        ridge = _RIDGE * np.trace(gram) / len(gram)
        wishes = np.linalg.solve(
            gram + ridge * np.eye(len(gram), dtype=np.float32), after.T @ vectors
        )
        # Row by row a wish is a combination of what ranks like one dimension of the old vectors.
        return cls(len(items), kept.tobytes(), wishes.T.astype(np.float16).tobytes())

    def applied(self, vectors: Int8Matrix, texts: Sequence[Text]) -> Int8Matrix:
        """The vectors of some texts, changed; zero stays zero."""
        wishes = np.array([not isinstance(text, str) and text.is_wish for text in texts], bool)
        changed = np.zeros(vectors.shape, np.float32)
        for chosen, stored in (~wishes, self.items), (wishes, self.wishes):
            if chosen.any():
                changed[chosen] = unit_rows(vectors[chosen].astype(np.float32)) @ self._map(stored)
        return quantise(changed)

    def _map(self, stored: bytes) -> FloatArray:
        found = np.frombuffer(stored, np.float16).astype(np.float32)
        return found.reshape(self.dimensions, self.dimensions)
