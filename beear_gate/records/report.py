"""The decision, and one finished scan."""

from __future__ import annotations

from dataclasses import dataclass

from beear_gate.records.canary import CanaryResult
from beear_gate.records.judges import Calibration, ServedJudge
from beear_gate.records.measured import LatentPoint, Measurement
from beear_gate.records.model import Conversion, FileRecord, Finding, SandboxRecord
from beear_gate.records.observed import Answer
from beear_gate.records.remediation import Changes, Remediation
from beear_gate.records.terms import Verdict


@dataclass(frozen=True)
class Decision:
    """The verdict and, worst first, the reasons for it: each names the rule, the figure and the limit.

    Attributes:
        because: the smallest set of `reasons` that gives this verdict by itself. One broken rule is enough to block, so
            there it is the worst one; the others say what is to be mended as well.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    because: tuple[str, ...] = ()


@dataclass(frozen=True)
class GateReport:
    """One finished scan, complete: every report format is rendered from this and nothing else.

    Attributes:
        policy, policy_digest: the policy's name and the sha256 over it and all its prompt files.
        before, after, revealed_before, revealed_after: answers for side-by-side reading.
        not_tested: sentences that say what this run could not show.
        environment: versions and machine.
        canary: the rehearsal on a copy with a planted backdoor; None where the policy wants none.
        calibrations: of the policy's judges, where there is one for the judge as it is now.
        latent: how large a delta has to be, before and after; empty where the policy does not ask.
        served_judges: the policy's judges that are models, behind an endpoint or loaded, and what they took.
        changes: the remediated model held against the original; None where nothing was remediated.
        sandbox: the container that the model was loaded in; None for the process of the scan.
        converted: the safetensors copy that was judged, of a model that had pickles alone; `commit` is the original's.
    """

    model: str
    commit: str
    policy: str
    policy_digest: str
    policy_description: str
    started: str
    seconds: float
    seed: int
    decision: Decision
    findings: tuple[Finding, ...]
    files: tuple[FileRecord, ...]
    measurements: tuple[Measurement, ...]
    before: tuple[Answer, ...]
    after: tuple[Answer, ...]
    remediation: Remediation | None
    safe_answers: int
    safe_answers_from_model: int
    not_tested: tuple[str, ...]
    environment: dict[str, str]
    canary: CanaryResult | None = None
    calibrations: tuple[Calibration, ...] = ()
    latent: tuple[LatentPoint, ...] = ()
    served_judges: tuple[ServedJudge, ...] = ()
    changes: Changes | None = None
    sandbox: SandboxRecord | None = None
    converted: Conversion | None = None
