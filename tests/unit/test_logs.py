"""What a process's log says of an error: where it came from, and nothing that a variable held."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, structlog
from config.logs import configure

configure("gateway", "one")

def sign_in(password):
    raise ValueError("refused")

try:
    sign_in("correct " + "horse")
except ValueError as error:
    {report}
"""


@pytest.mark.parametrize(
    "report",
    [
        'structlog.get_logger().error("failed", exc_info=error)',
        'structlog.get_logger().exception("failed")',
        'logging.getLogger("library").error("failed", exc_info=error)',
    ],
)
def test_an_error_is_told_with_its_place_and_without_what_variables_held(report: str) -> None:
    program = PROGRAM.format(report=report)
    line = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr
    told = json.loads(line)
    assert "horse" not in line
    assert (told["event"], told["role"], told["name"]) == ("failed", "gateway", "one")
    (error,) = told["exception"]
    assert (error["exc_type"], error["exc_value"]) == ("ValueError", "refused")
    assert error["frames"][-1]["name"] == "sign_in"
