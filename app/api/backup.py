"""The backup of the whole store."""

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from app.api.dependencies import TheCatalogs
from app.api.schema import problems
from app.api.transfer import continued
from app.backup import backup_pieces
from app.jobs import JobReport

router = APIRouter(prefix="/v1/backup", tags=["transfer"])

ZIP = "application/zip"
_FILE = {"schema": {"type": "string", "format": "binary"}}
_NAMED = {"Content-Disposition": 'attachment; filename="unillmrec-backup.zip"'}


@router.get(
    "",
    operation_id="get_backup",
    response_class=StreamingResponse,
    responses={**problems(), 200: {"description": "A zip file", "content": {ZIP: _FILE}}},
)
async def get_backup(catalogs: TheCatalogs) -> StreamingResponse:
    """Download everything in the store as one file for `unillmrec restore`.

    Each catalogue is consistent. `restore` rejects a file whose download broke off.
    """
    pieces = backup_pieces(catalogs, JobReport.unwatched())
    first = await anext(pieces, b"")  # an error of the store can still change the status
    return StreamingResponse(continued(first, pieces), media_type=ZIP, headers=_NAMED)
