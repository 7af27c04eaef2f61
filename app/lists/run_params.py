"""`RunParams`: what a recommendation run does."""

from pydantic import BaseModel, ConfigDict, JsonValue


class RunParams(BaseModel):
    """The parameters of a run, as its job has them.

    `folder` is the name of its folder of files. `request` has the fields that each request starts
    with. With `stored_users`, the requests are made from the users that are stored when it begins.
    """

    model_config = ConfigDict(frozen=True)

    folder: str
    request: dict[str, JsonValue] = {}
    stored_users: bool = False
    max_cost_usd: float | None = None
