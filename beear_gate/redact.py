"""Secrets taken out of what is shown or written: hub tokens, and credentials in the address of a server."""

from __future__ import annotations

import os
import re

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
