"""`JobTimes`: how long the processes that run jobs wait for each other."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobTimes:
    """All in seconds. Tests use shorter times than the service."""

    lease_s: float = 10.0  # a process that is silent for so long loses its jobs to another one
    heartbeat_s: float = 1.0  # between two renewals of a lease
    recovery_s: float = 2.0  # between two searches for lost jobs, on average
