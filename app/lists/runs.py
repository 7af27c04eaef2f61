"""`RecommendationRuns`: recommendation runs of one catalogue, as jobs run them."""

import asyncio
import shutil
from pathlib import Path

from app.jobs import Job, JobFailed, JobReport
from app.lists.answers import OwnAnswers
from app.lists.run import ListRun
from app.lists.run_files import RunFiles
from app.lists.run_params import RunParams
from app.llm import ModelRejected
from app.recommend import Recommender
from app.storage.feedback import Feedback


class RecommendationRuns:
    """See JobWorker, for jobs of type `recommendation`."""

    def __init__(self, recommender: Recommender, feedback: Feedback, runs: Path) -> None:
        """`runs` is the folder of all runs."""
        self._recommender = recommender
        self._feedback = feedback
        self._runs = runs

    async def can_run(self, job: Job) -> bool:
        """See JobWorker. The files are in the data folder of the process that began the run."""
        return folder_of(self._runs, job).exists()

    async def stored_result(self, job: Job) -> dict[str, object]:
        """See JobWorker."""
        files = RunFiles.within(folder_of(self._runs, job))
        return (await asyncio.to_thread(files.known)).result()

    async def work(self, job: Job, report: JobReport) -> dict[str, object]:
        """See JobWorker. Raises JobFailed."""
        params = RunParams.model_validate(job.params)
        files = RunFiles.within(self._runs / params.folder)
        run = ListRun(
            OwnAnswers(self._recommender, params.request),
            files,
            params.max_cost_usd,
            catalog_id=job.catalog_id,
            users=self._feedback if params.stored_users else None,
        )
        try:
            return (await run.run(report)).result()
        except ModelRejected as error:  # a mistake in the settings, not in a request
            raise JobFailed("model_rejected", str(error)) from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise JobFailed("files_unusable", f"the files of the run: {reason}") from error


def folder_of(runs: Path, job: Job) -> Path:
    """The folder of a run."""
    return runs / RunParams.model_validate(job.params).folder


def forget_requests(runs: Path, job: Job) -> None:
    """Remove what only the run itself needed, or all of it if there are no lists."""
    if job.type != "recommendation":
        return
    folder = folder_of(runs, job)
    files = RunFiles.within(folder)
    if files.lists.exists():
        files.remove_traces()
    else:
        shutil.rmtree(folder, ignore_errors=True)
