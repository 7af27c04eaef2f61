"""What an answer says where a weak model was not asked."""

from app.recommend.response import AnswerWarning
from app.recommend.standing.standing import Standing


def weak_model(standing: Standing) -> AnswerWarning:
    """The warning of an answer that is by vectors alone."""
    return AnswerWarning(
        code="llm_weak",
        message=f"items are ranked by vectors alone: the model {standing.model} was examined, and "
        f"{standing.line()}",
    )
