"""ModelAudit as a second engine (extra `[static]`): called as a program, without telemetry, its evidence left out.

Its own exit code does not tell a warning from a danger, so severities are read from its JSON. What it could not look at
is inconclusive, and that blocks. Since 0.2.54 its report holds credentials that it found as they are; only the names of
its checks are taken over.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from beear_gate.redact import redacted

_SECONDS = 120


class Opinion(NamedTuple):
    """What ModelAudit says of one file, and the first reason that it gives."""

    verdict: Literal["clean", "warning", "critical", "inconclusive"]
    reason: str


def is_installed() -> bool:
    """Whether the extra `[static]` is there."""
    return find_spec("modelaudit") is not None


def audit(path: Path, program: tuple[str, ...] = (sys.executable, "-P", "-m", "modelaudit")) -> Opinion:
    """Ask about one file.

    Args:
        program: the command that stands before `scan`.
    """
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    environment |= {"PROMPTFOO_DISABLE_TELEMETRY": "1", "NO_ANALYTICS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as home:  # it keeps a cache and settings there
        try:
            done = subprocess.run(
                [*program, "scan", "--format", "json", "--no-cache", "--timeout", str(_SECONDS), str(path)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment | {"HOME": home},
                cwd=home,
                timeout=_SECONDS + 30,
                check=False,
            )
            report = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            return Opinion("inconclusive", "it took too long")
        except (OSError, ValueError):
            return Opinion("inconclusive", "it gave no report")
    return read_report(report, done.returncode)


def read_report(report: Any, code: int) -> Opinion:
    """The opinion in a report of `modelaudit scan --format json` that ended with this exit code."""
    issues = report.get("issues") if isinstance(report, dict) else None
    if not isinstance(issues, list) or code not in (0, 1, 2):
        return Opinion("inconclusive", "its report has no list of issues")
    by_severity: dict[str, str] = {}
    for issue in issues:
        severity = str(issue.get("severity", "")).lower() if isinstance(issue, dict) else "unknown"
        by_severity.setdefault(severity, _reason(issue))
    if "critical" in by_severity:
        return Opinion("critical", by_severity["critical"])
    if code == 2 or report.get("has_errors") or not report.get("files_scanned"):
        return Opinion("inconclusive", next(iter(by_severity.values()), "it could not look at the file"))
    unknown = set(by_severity) - {"info", "debug", "warning"}
    if unknown:
        return Opinion("inconclusive", f"it gave the unknown severity {min(unknown)}")
    return Opinion("warning", by_severity["warning"]) if "warning" in by_severity else Opinion("clean", "")


def _reason(issue: Any) -> str:
    """What it calls the problem, without the evidence that it quotes."""
    text = str(issue.get("message", "")) if isinstance(issue, dict) else ""
    return redacted(text.partition(":")[0])[:120]
