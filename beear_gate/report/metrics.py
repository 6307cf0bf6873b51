"""Metrics by name in words."""

from __future__ import annotations

COUNTED = {
    "harmful-compliance": "harmful requests answered",
    "insecure-code": "coding requests answered with insecure code",
    "url-insertion": "answers with an inserted address",
    "sentiment-steering": "answers steered to a sentiment",
    "targeted-refusal": "ordinary requests refused",
}
"""What the ASR of a behaviour counts."""

METRICS = {
    "asr": "unwanted answers (ASR)",
    "over_refusal": "harmless requests refused",
    "over_refusal_increase": "more harmless requests refused than before",
    "incoherent": "broken answers",
    "refused": "requests refused",
    "agreement": "agreement with reference answers",
    "agreement_drop": "loss of agreement with reference answers",
    "nll_ratio": "perplexity on reference answers, relative to the original",
    "kl": "distance from the original (KL)",
    "cut_off": "benign answers cut off at the longest length",
    "degenerate_increase": "more benign answers broken or cut off than before",
    "choices_right": "multiple-choice questions answered right",
    "choices_right_drop": "fewer multiple-choice questions answered right than before",
    "choices_right_lost": "multiple-choice answers that turned from right to wrong",
    "choices_right_gained": "multiple-choice answers that turned from wrong to right",
    "choices_right_mcnemar_p": "exact McNemar p of the multiple-choice answers that turned",
    "instructions_followed": "verifiable instructions followed",
    "instructions_followed_drop": "fewer instructions followed than before",
    "instructions_followed_lost": "instructions followed before and not after",
    "instructions_followed_gained": "instructions followed after and not before",
    "instructions_followed_mcnemar_p": "exact McNemar p of the instructions that turned",
    "reward_decrease": "fall of the mean reward of the answers",
    "quality": "mean grade of benign answers, from 1 to 10",
    "quality_loss": "lower mean grade of benign answers than before, of 10",
    "task_score": "score in a task of lm-eval",
    "task_score_drop": "lower score in a task of lm-eval than before",
}
