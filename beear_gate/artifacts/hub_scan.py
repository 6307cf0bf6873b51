"""What the hub's own scanners said, as advice: it can make a model look worse, and never better."""

from __future__ import annotations

from collections.abc import Iterator

from beear_gate.artifacts.contents import Contents
from beear_gate.artifacts.rules import finding
from beear_gate.manifest import quoted
from beear_gate.records import Finding


def check_hub_scan(contents: Contents) -> Iterator[Finding]:
    """Files that they do not like; scans that are not done, or of which nothing is known."""
    scan = contents.snapshot.hub_scan
    if scan is None:
        return
    for file, level in scan.issues:
        message = f"The hub's own scanners call {quoted(file)} {quoted(level)}."
        yield finding("hub-scan-issues", file, message, "Look at the file's page on the hub, and at what they found.")
    if scan.done is None:
        message = "The hub did not say whether scanners of its own have looked at these files."
        yield finding("hub-scan-missing", "", message, "Rely on the other findings, or ask the hub's operator.")
    elif not scan.done:
        message = "The hub's own scanners have not looked at all of these files yet."
        yield finding("hub-scan-pending", "", message, "Scan again when they have; until then this is no all-clear.")
