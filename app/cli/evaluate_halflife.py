"""`evaluate halflife`: the command's work."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.cli.evaluation_options import Common
from app.cli.evaluation_setup import evaluating, loaded

if TYPE_CHECKING:
    from app.evaluation.halflife import HalfLifeStudy
    from app.evaluation.report import ResultRow, Results


async def evaluated_half_lives(
    common: Common, half_lives: Sequence[float]
) -> "tuple[Results, list[ResultRow], HalfLifeStudy]":
    """The rows of all choices, and the study that has chosen."""
    from app.evaluation.halflife import HalfLifeStudy
    from app.evaluation.studies import StudyInput

    async with evaluating(common) as opened:
        data = loaded(
            common.data, common.format, common.min_rating, opened.bar, common.enrichments or ()
        )
        given = StudyInput(data, common.users or None, common.seed, min_rating=common.min_rating)
        study = HalfLifeStudy(given, opened.context.settings, half_lives)
        rows: list[ResultRow] = []
        async for row in opened.evaluation(data, with_lists=False).run(study.trials()):
            study.add(row)
            rows.append(row)
    return opened.results, rows, study


def advice(study: "HalfLifeStudy") -> list[str]:
    """What was chosen, and how to set it, in lines."""
    choice = study.chosen
    if choice is None or choice == study.plain:
        return ["Counts that do not fade, with the weights as they are, were the best."]
    found = [
        f"Best on the first half of the users: {choice.system.partition(':')[2]}",
        "On the other half it is better than no fading."
        if study.is_better
        else "On the other half it is not certainly better than no fading: keep what you have.",
    ]
    if not study.is_better:
        return found
    days = f"{choice.half_life_days:g}" if choice.half_life_days else "null"
    return [
        *found,
        f'Set it: PATCH /v1/catalogs/NAME {{"half_life_days": {days}}}',
        f"        UNILLMREC_POPULARITY_WEIGHT={choice.popularity_weight:g}"
        f" UNILLMREC_COOCCURRENCE_WEIGHT={choice.cooccurrence_weight:g},"
        " or the weights of a variant or a request",
    ]
