"""What schemathesis (tests/contract.py) checks here beside its own."""

from typing import Any

import schemathesis
from schemathesis import Case, CheckContext
from schemathesis.core.transport import Response

_BEYOND_SCHEMAS = {"invisible", "email", "link", "together", "too_long"}
"""Parts that are not as they should be in a way that no JSON schema can say; ``too_long``: in bytes."""


@schemathesis.check
def refused_for_a_reason(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Who asks as described may be refused because of what is asked for, never because of the form."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 422:
        return
    problem = response.json()
    kinds = {error["code"] for error in problem.get("errors", ())}
    if problem["code"] == "invalid_request" and kinds - _BEYOND_SCHEMAS:
        raise AssertionError(f"as described, and yet of a wrong form: {problem}")
