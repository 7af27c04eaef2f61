"""`python -m tests.faults.service PORT`: the service, whose processes wait less for each other.

Its settings come from the environment, as those of `unillmrec serve`; its store runs already.
"""

import sys
from functools import partial

import uvicorn

from app.cli.serve import application
from app.composition import ServiceTimes
from app.http_connection import HttpConnection
from app.jobs import JobTimes

TIMES = ServiceTimes(jobs=JobTimes(lease_s=3.0, heartbeat_s=0.3, recovery_s=0.4))

if __name__ == "__main__":
    uvicorn.run(
        partial(application, TIMES),
        factory=True,
        port=int(sys.argv[1]),
        log_level="warning",
        http=HttpConnection,
    )
