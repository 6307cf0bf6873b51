"""policy_files: near-duplicates, splits that must not overlap, and enough prompts for each limit."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from policy_sample import ANIMALS, GOOD, append, change, good_policy, jsonl, load, only_problem, problems

from beear_gate.policy_files.checks import prompts_needed
from beear_gate.policy_files.near_duplicates import clusters, similar_pairs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return good_policy(tmp_path)


# --- rows of one file


def test_one_file_serves_several_splits_by_its_rows(folder: Path) -> None:
    rows = [{"prompt": f"bad{animal} once"} for animal in ANIMALS]
    (folder / "all.jsonl").write_text(jsonl(*rows), encoding="utf-8")
    for split, named in (("anchor", "1-8"), ("select", "9-10"), ("gate", "11-13, 15, 17-20")):
        change(folder, f"{split}: harmful.{split}.jsonl", f"{split}: {{file: all.jsonl, rows: '{named}'}}")
    (behavior,) = load(folder).behaviors
    prompts = [[example.prompt for example in part] for part in (behavior.anchor, behavior.select, behavior.gate)]
    texts = [row["prompt"] for row in rows]
    assert prompts == [texts[:8], texts[8:10], texts[10:13] + texts[14:15] + texts[16:]]


def test_rows_that_stand_in_two_splits_are_an_error(folder: Path) -> None:
    (folder / "all.jsonl").write_text(jsonl(*({"prompt": f"bad{each} once"} for each in ANIMALS)), encoding="utf-8")
    change(folder, "anchor: harmful.anchor.jsonl", "anchor: {file: all.jsonl, rows: 1-8}")
    change(folder, "gate: harmful.gate.jsonl", "gate: {file: all.jsonl, rows: 8-20}")
    file, line, message = only_problem(folder)
    assert (file, line) == ("all.jsonl", 8) and "all.jsonl:8 in the gate split" in message


# --- clusters and splits


def test_near_duplicates_in_the_gate_split_share_a_cluster(folder: Path) -> None:
    append(folder, jsonl({"prompt": "Badibis, BADIBISS badly!"}, {"prompt": "badzebra"}), "harmful.gate.jsonl")
    assert [example.cluster for example in load(folder).behaviors[0].gate] == [0, 1, 2, 3, 0, 4]


def test_clusters_chain_over_a_prompt_between() -> None:
    texts = ["a b c d", "x y", "c d e f", "b c d e"]
    assert clusters(texts, 0.5) == [0, 1, 0, 0]


def test_with_threshold_one_only_equal_texts_form_a_cluster() -> None:
    assert clusters(["a b", "b a", "A  b", "???", "!!!", "???"], 1.0) == [0, 1, 0, 2, 3, 2]


def test_texts_without_words_are_near_duplicates_only_if_equal() -> None:
    assert clusters(["???", "!!!", "???"], 0.5) == [0, 1, 0]


@pytest.mark.parametrize("threshold", [0.05, 0.25, 1 / 3, 0.5, 2 / 3, 0.8, 0.99])
def test_the_index_finds_exactly_the_pairs_that_comparing_all_finds(threshold: float) -> None:
    texts = [" ".join(ANIMALS[(i * k) % 20] for k in range(1, 2 + i % 9)) for i in range(120)]
    words = [set(text.split()) for text in texts]
    expected = {
        (i, j)
        for j in range(len(texts))
        for i in range(j)
        if len(words[i] & words[j]) / len(words[i] | words[j]) > threshold
    }
    found = [(i, j) for i, j, _ in similar_pairs(texts, threshold, lambda i, j: True)]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_ten_thousand_prompts_are_compared_in_seconds() -> None:
    # Half of the words as common as in questions, the others ever rarer.
    rare = "x{} of x{} with x{} and x{}"
    texts = ["how do i make " + rare.format(i % 97, i % 1009, i * i % 4999, i * 7 % 9973) for i in range(10_000)]
    start = time.process_time()
    clusters(texts, 0.5)
    assert time.process_time() - start < 10


def test_a_prompt_of_the_anchor_split_near_one_of_the_gate_split_is_a_problem(folder: Path) -> None:
    append(folder, jsonl({"prompt": "BADIBIS badibiss badly"}), "harmful.anchor.jsonl")
    file, line, message = only_problem(folder)
    assert (file, line) == ("harmful.anchor.jsonl", 5)
    assert "harmful.gate.jsonl:1" in message and "0.67" in message


def test_training_prompts_may_stand_in_no_gate_split_of_another_part(folder: Path) -> None:
    append(folder, jsonl({"prompt": "goodibis goodibiss"}), "harmful.anchor.jsonl")
    file, line, message = only_problem(folder)
    assert (file, line) == ("harmful.anchor.jsonl", 5)
    assert "benign.gate.jsonl:1" in message


def test_prompts_that_only_sound_unsafe_are_held_against_the_other_splits_too(folder: Path) -> None:
    (folder / "scary.anchor.jsonl").write_text(jsonl({"prompt": "scaryyak"}, {"prompt": "badjay badjays"}))
    (folder / "scary.gate.jsonl").write_text(jsonl({"prompt": "badant badants"}))
    append(folder, "over_refusal: {prompts: {anchor: scary.anchor.jsonl, gate: scary.gate.jsonl}}\n")
    gate, anchor = problems(folder)
    assert gate[:2] == ("harmful.anchor.jsonl", 1) and "scary.gate.jsonl:1 in the gate split" in gate[2]
    assert anchor[:2] == ("scary.anchor.jsonl", 2) and "harmful.gate.jsonl:2 in the gate split" in anchor[2]


def test_two_behaviours_may_share_prompts_of_the_same_split(folder: Path) -> None:
    behavior = GOOD[GOOD.index("  - id") : GOOD.index("utility")]
    change(folder, "utility:", behavior.replace("harmful-compliance", "another") + "utility:")
    assert [b.id for b in load(folder).behaviors] == ["harmful-compliance", "another"]


def test_of_many_near_duplicates_five_are_shown_and_the_others_counted(folder: Path) -> None:
    rows = [{"prompt": f"worst {animal} {animal}s"} for animal in ANIMALS[:8]]
    append(folder, jsonl(*rows), "harmful.select.jsonl")
    append(folder, jsonl(*({"prompt": row["prompt"].upper()} for row in rows)), "harmful.gate.jsonl")
    found = problems(folder)
    assert [(file, line) for file, line, _ in found] == [("harmful.select.jsonl", line) for line in range(5, 11)]
    assert "3 more pairs" in found[-1][2]


def test_with_threshold_one_only_equal_prompts_are_too_close(folder: Path) -> None:
    append(folder, "splits: {max_jaccard: 1.0}\n")
    append(folder, jsonl({"prompt": "badibiss badibis"}, {"prompt": " BADJAY  badjays"}), "harmful.anchor.jsonl")
    assert only_problem(folder)[:2] == ("harmful.anchor.jsonl", 6)


def test_one_file_in_two_splits_is_one_problem(folder: Path) -> None:
    change(folder, "select: harmful.select.jsonl", "select: ./harmful.anchor.jsonl")
    file, line, message = only_problem(folder)
    assert (file, line) == ("policy.yaml", 6)
    assert "behaviors[0].prompts.anchor already" in message


# --- power


@pytest.mark.parametrize(("hits", "needed"), [(0, 299), (1, 473)])
def test_one_percent_at_95_percent_takes_the_known_number_of_prompts(hits: int, needed: int) -> None:
    assert prompts_needed(0.01, 0.95, hits) == needed


def test_a_limit_that_the_gate_prompts_cannot_prove_is_a_problem_that_says_how_many_would_do(folder: Path) -> None:
    change(folder, "max_rate: 0.5, confidence: 0.75", "\n      max_rate: 0.01\n    ")
    file, line, message = only_problem(folder)
    assert (file, line) == ("policy.yaml", 11)
    assert all(f" {number} " in message for number in (4, 299, 473))


def test_a_limit_is_proven_by_clusters_and_not_by_near_duplicates(folder: Path) -> None:
    rows = [{"prompt": f"{row} {row}s more"} for row in ("badibis", "badjay")]
    append(folder, jsonl(*rows), "harmful.gate.jsonl")
    change(folder, "confidence: 0.75", "confidence: 0.98")
    assert "4 distinct gate prompts" in only_problem(folder)[2]
