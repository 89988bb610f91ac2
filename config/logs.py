"""Structured logs: one JSON object a line on standard error."""

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog


class _Stderr:
    """Standard error, where it can be written: a full disk under the log must not end the process."""

    def write(self, text: str) -> int:
        try:
            return sys.stderr.write(text)
        except OSError:
            return 0

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


def configure(role: str, name: str) -> None:
    """Send this process's logs, the standard library's included, to standard error. SHARDPAY_LOG_LEVEL sets the level."""
    level = logging.getLevelNamesMapping().get(os.environ.get("SHARDPAY_LOG_LEVEL", "INFO").upper(), logging.INFO)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Where an error came from, not what variables held there: passwords and keys, for instance.
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role, name=name)
    handler = logging.StreamHandler(_Stderr())
    renderer = structlog.stdlib.ProcessorFormatter(
        processor=structlog.processors.JSONRenderer(), foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name]
    )
    handler.setFormatter(renderer)
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
