"""`VariedRequest`: a request with the settings of its variant."""

from dataclasses import dataclass

from app.rank_weights import RankWeights
from app.recommend.request import RecommendRequest
from app.variants import CONTROL, Variants


@dataclass(frozen=True, slots=True)
class VariedRequest:
    """A request, the variant that it belongs to, and the weights that it starts with."""

    request: RecommendRequest
    weights: RankWeights
    variant: str = CONTROL

    @classmethod
    def of(
        cls, request: RecommendRequest, weights: RankWeights, variants: Variants
    ) -> "VariedRequest":
        """The request with what its variant changes, where it does not say something itself.

        Raises UnknownVariant.
        """
        name = variants.chosen(request.variant, request.user_id)
        settings = variants.settings_of(name)
        if settings is None:
            return cls(request, weights, name)
        differs: dict[str, object] = {}
        if settings.strategy is not None and "strategy" not in request.model_fields_set:
            differs["strategy"] = settings.strategy
        if settings.effort is not None and "effort" not in request.model_fields_set:
            differs["effort"] = settings.effort
        if differs:
            request = request.model_copy(update=differs)
        return cls(request, weights.changed(settings.weights, settings.diversity), name)
