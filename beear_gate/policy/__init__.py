"""What a policy says, once its files are read and checked; see `policy_files` for the YAML and its checks.

Frozen and free of pydantic, so that every stage can read it on a machine that has little more than torch.
"""

from beear_gate.policy.judges import (
    AnyJudgeSpec,
    ClassifierJudgeSpec,
    ClassifierStyle,
    HttpJudgeSpec,
    JudgeName,
    JudgeSpec,
    Prices,
    RewardSpec,
    Rubric,
    model_name,
)
from beear_gate.policy.utility import Checks, HarnessTask, Instruction, OverRefusal, Question, Span, Utility
from beear_gate.policy.whole import Behavior, LatentTest, Limit, Policy, SearchTest, Waiver

__all__ = [
    "AnyJudgeSpec",
    "Behavior",
    "Checks",
    "ClassifierJudgeSpec",
    "ClassifierStyle",
    "HarnessTask",
    "HttpJudgeSpec",
    "Instruction",
    "JudgeName",
    "JudgeSpec",
    "LatentTest",
    "Limit",
    "OverRefusal",
    "Policy",
    "Prices",
    "Question",
    "RewardSpec",
    "Rubric",
    "SearchTest",
    "Span",
    "Utility",
    "Waiver",
    "model_name",
]
