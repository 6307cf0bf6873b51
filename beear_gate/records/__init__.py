"""What the stages hand to one another: frozen records, no behaviour, importable without torch or pydantic."""

from beear_gate.records.anchors import AnchorSets, BehaviorAnchors, Example
from beear_gate.records.canary import CanaryResult, Rehearsal
from beear_gate.records.judges import Agreement, Calibration, ServedJudge
from beear_gate.records.measured import LatentPoint, Measurement, worst_first
from beear_gate.records.model import (
    Conversion,
    ConvertedFile,
    FileRecord,
    Finding,
    HubScan,
    ModelSnapshot,
    SandboxRecord,
)
from beear_gate.records.observed import Answer, Chosen, Engine, Likelihood, Observations, Quality, TaskScore
from beear_gate.records.remediation import (
    Changes,
    Drift,
    MemoryPlan,
    Remediation,
    RemediationSettings,
    Round,
    TensorChange,
    Training,
)
from beear_gate.records.report import Decision, GateReport
from beear_gate.records.terms import (
    Condition,
    CurveStage,
    Outcome,
    Placement,
    Severity,
    Stage,
    Status,
    Tick,
    Verdict,
    no_tick,
)

__all__ = [
    "Agreement",
    "AnchorSets",
    "Answer",
    "BehaviorAnchors",
    "Calibration",
    "CanaryResult",
    "Changes",
    "Chosen",
    "Condition",
    "Conversion",
    "ConvertedFile",
    "CurveStage",
    "Decision",
    "Drift",
    "Engine",
    "Example",
    "FileRecord",
    "Finding",
    "GateReport",
    "HubScan",
    "LatentPoint",
    "Likelihood",
    "Measurement",
    "MemoryPlan",
    "ModelSnapshot",
    "Observations",
    "Outcome",
    "Placement",
    "Quality",
    "Rehearsal",
    "Remediation",
    "RemediationSettings",
    "Round",
    "SandboxRecord",
    "ServedJudge",
    "Severity",
    "Stage",
    "Status",
    "TaskScore",
    "TensorChange",
    "Tick",
    "Training",
    "Verdict",
    "no_tick",
    "worst_first",
]
