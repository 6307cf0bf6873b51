"""Secrets taken out of what is shown or written: hub tokens, and credentials in the address of a server."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

_HUB_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}")
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]*@")
_ENVIRONMENT = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "BEEAR_GATE_KEY_PASSPHRASE",
)
_SHORTEST = 6  # a shorter "secret" of the environment is no secret, and would blot out half of a message


def without_credentials(uri: str) -> str:
    """An address without the user and password in it."""
    return _CREDENTIALS.sub("", uri)


def redacted(text: str) -> str:
    """A message without tokens and passwords, whether this machine knows them or they only look like one."""
    for name in _ENVIRONMENT:
        secret = os.environ.get(name, "")
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    return without_credentials(_HUB_TOKEN.sub("***", text))


def redact_logs() -> None:
    """From here on, log records of every library lose their secrets before any handler sees them.

    The hub's client, for one, logs the whole address of a request that failed.
    """
    logging.setLogRecordFactory(_record)


def _record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **kwargs)
    try:
        record.msg, record.args = redacted(record.getMessage()), None
    except (TypeError, ValueError):
        record.msg, record.args = "A log message could not be formatted.", None
    return record
