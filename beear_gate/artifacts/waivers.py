"""Waivers of the policy: a finding that somebody accepts until a day. It stays visible, and does not block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from beear_gate.artifacts.rules import finding
from beear_gate.manifest import quoted
from beear_gate.policy import Waiver
from beear_gate.records import Finding


def apply_waivers(findings: Sequence[Finding], waivers: Sequence[Waiver], today: date) -> tuple[Finding, ...]:
    """The findings, those marked that a waiver covers, and one more for each waiver that is expired or fits none."""
    day = today.isoformat()
    valid = {(each.rule, each.file): each for each in waivers if each.expires >= day}
    marked = [_marked(each, valid.get((each.id, each.file))) for each in findings]
    present = {(each.id, each.file) for each in findings}
    for waiver in waivers:
        of = f"The waiver of {waiver.rule} for {quoted(waiver.file or 'the repository')}, by {quoted(waiver.owner)},"
        if waiver.expires < day:
            remedy = "Resolve the finding, or renew the waiver in the policy."
            marked.append(finding("waiver-expired", waiver.file, f"{of} expired on {waiver.expires}.", remedy))
        elif (waiver.rule, waiver.file) not in present:
            remedy = "Take it out of the policy, so that it cannot cover a later finding."
            marked.append(finding("waiver-unmatched", waiver.file, f"{of} fits no finding.", remedy))
    return tuple(marked)


def _marked(found: Finding, waiver: Waiver | None) -> Finding:
    if waiver is None:
        return found
    return replace(found, waived=f"by {waiver.owner} until {waiver.expires}: {waiver.reason}")
