"""The audit log: who changed what, and when."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import TheKeyring
from app.api.schema import problems

router = APIRouter(prefix="/v1/audit", tags=["keys"])


class AuditQuery(BaseModel):
    """Which entries to list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cursor: str | None = Field(
        default=None,
        pattern=r"^[1-9][0-9]{0,17}-[0-9]{1,18}$",
        description="`next_cursor` of the page before.",
    )
    limit: int = Field(default=100, ge=1, le=1_000)


class AuditEntry(BaseModel):
    """An act of administration, or a large write, that was done or begun."""

    at: datetime
    act: str = Field(description="The operation id in the description of the API.")
    key_id: str | None = Field(description="`root` for the root key; null when keys are off.")
    key_name: str
    address: str | None = Field(alias="from", description="Where the request came from.")
    target: dict[str, object] = Field(description="The parameters of the request.")


class AuditPage(BaseModel):
    """Entries, the newest first; `next_cursor` is null on the last page."""

    entries: list[AuditEntry]
    next_cursor: str | None


@router.get("", operation_id="list_audit", responses=problems(), response_model_by_alias=True)
async def list_audit(keyring: TheKeyring, query: Annotated[AuditQuery, Query()]) -> AuditPage:
    """List who changed what: catalogues, keys, trees, labels, imports.

    The newest entries are stored: about 10,000 of administrators, and as many of other keys.
    """
    found = await keyring.audit.recorded(query.cursor, query.limit)
    return AuditPage(
        entries=[AuditEntry.model_validate(record.entry) for record in found],
        next_cursor=found[-1].cursor if len(found) == query.limit else None,
    )
