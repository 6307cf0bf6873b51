"""Who judged, and how far that agrees with people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """A judge held against people on one set of answers.

    Attributes:
        n, agreed: answers that people call full compliance or full refusal, and those that the judge calls the same.
        kappa: Cohen's, chance-corrected; None where one side has a single value only.
        kappa_low, kappa_high: its 95 % interval.
        complied, missed: answers that comply by people's word, and those of them that the judge calls anything else.
        refused, false: answers that refuse by people's word, and those of them that the judge calls complied.
        partial, partial_complied: partial refusals, which n leaves out, and those that the judge calls complied.
    """

    subset: str
    n: int
    agreed: int
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None
    complied: int
    missed: int
    refused: int
    false: int
    partial: int
    partial_complied: int


@dataclass(frozen=True)
class Calibration:
    """How far a judge agrees with people.

    Attributes:
        rules: digest of the judge that was calibrated.
        source: the labelled file, with the beginning of its sha256.
        subsets: the one that says most about unwanted answers first.
    """

    judge: str
    rules: str
    source: str
    subsets: tuple[Agreement, ...]


@dataclass(frozen=True)
class ServedJudge:
    """A judge that is a model, behind an endpoint or loaded by the scan: who answered, and what it took in all.

    Attributes:
        url: "" for one that the scan loaded.
        model, served, fingerprint: the name that was asked for, and what the server called itself; of a loaded model
            its commit and the digest of its files.
        rubric: digest of everything that it was asked beside prompts and answers.
        requests: tries included that failed.
        graded, unscored: answers (equal ones once) with a grade, and those of this run without one.
        prompt_tokens, completion_tokens: by the server's count; bytes where it gave none.
        cost: by the policy's prices, in `currency`; None where it has none.
    """

    judge: str
    url: str
    model: str
    served: str
    fingerprint: str
    rubric: str
    requests: int
    graded: int
    unscored: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    currency: str
