"""Endpoints as people who run them have reported them: one kind per name.

Behind each stands the same model, which answers well.
"""

from tests.servers.endpoints import (
    envelopes,
    formats,
    parameters,
    passing,
    roles,
    thinking,
    writings,
)
from tests.servers.endpoints.kind import Kind

KINDS: tuple[Kind, ...] = (
    *thinking.KINDS,
    *parameters.KINDS,
    *formats.KINDS,
    *roles.KINDS,
    *envelopes.KINDS,
    *writings.KINDS,
    *passing.KINDS,
)
