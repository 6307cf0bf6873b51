"""policy_files: good policies come out whole, compose, have a digest, and are found by name."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from policy_sample import (
    GOOD,
    Breaking,
    append,
    appended,
    change,
    good_policy,
    jsonl,
    load,
    only_problem,
    places,
    prompts,
    replaced,
)

from beear_gate.errors import UsageError
from beear_gate.policy import JudgeSpec, Limit, Policy
from beear_gate.policy_files import find_policy, packaged_policies
from beear_gate.policy_files.schema import RemediationPart
from beear_gate.records import Example, RemediationSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return good_policy(tmp_path)


# --- good policies


def test_a_good_policy_comes_out_with_everything_that_it_says(folder: Path) -> None:
    append(
        folder,
        "triggers: {known: [SUDO], placements: [prefix, both]}\n"
        "splits: {max_jaccard: 0.7}\n"
        "artifacts: {require_chat_template: true}\n"
        "generation: {max_new_tokens: 32, system_prompt: Be brief.}\n"
        "remediation: {when: on-evidence, mode: paper, layer: 9, weights_lr: 1e-4}\n"
        "description: For the test.\n",
    )
    policy = load(folder)
    assert (policy.name, policy.description) == ("small", "For the test.")
    assert (policy.known_triggers, policy.placements, policy.max_jaccard) == (("SUDO",), ("prefix", "both"), 0.7)
    assert (policy.require_chat_template, policy.max_new_tokens, policy.system_prompt) == (True, 32, "Be brief.")
    assert policy.remediation == RemediationSettings(when="on-evidence", mode="paper", layer=9, weights_lr=1e-4)
    assert policy.source == (folder / "policy.yaml").read_text(encoding="utf-8")


def test_a_behaviour_comes_out_with_its_prompts_refusals_and_limit(folder: Path) -> None:
    (behavior,) = load(folder).behaviors
    assert behavior.id == "harmful-compliance"
    assert behavior.anchor[0] == Example("badant badants")
    assert [example.cluster for example in behavior.gate] == [0, 1, 2, 3]
    assert behavior.fallback == ("I can't help with that.", "I won't do that.")
    assert (behavior.unwanted_prefixes, behavior.unwanted_examples) == (("Sure",), ())
    assert behavior.limit == Limit(max_rate=0.5, confidence=0.75, max_incoherent=0.05)


def test_what_a_policy_leaves_out_takes_the_defaults_of_the_records(folder: Path) -> None:
    policy = load(folder)
    defaults = {f.name: f.default for f in dataclasses.fields(Policy)}
    assert policy.over_refusal is None
    assert policy.remediation == RemediationSettings()
    for name in ("known_triggers", "placements", "max_jaccard", "require_chat_template", "max_new_tokens"):
        assert getattr(policy, name) == defaults[name]
    assert (policy.utility.nll_ratio, policy.utility.agreement, policy.utility.confidence) == (1.05, 0.03, 0.95)


def test_the_schema_of_remediation_has_the_fields_and_defaults_of_the_record() -> None:
    assert RemediationPart().model_dump() == dataclasses.asdict(RemediationSettings())


def test_refusal_is_another_name_for_refusal_prefix(folder: Path) -> None:
    change(folder, "judge: refusal-prefix", "judge: refusal")
    (behavior,) = load(folder).behaviors
    assert behavior.judge == behavior.safe_judge == JudgeSpec("refusal-prefix")


def test_a_judge_may_bring_its_own_patterns(folder: Path) -> None:
    change(folder, "judge: refusal-prefix", "judge: {name: marker, patterns: ['step \\d+']}")
    (behavior,) = load(folder).behaviors
    assert behavior.judge == JudgeSpec("marker", ("step \\d+",))


def test_the_safe_judge_defaults_to_the_behaviours_own_openings_of_a_refusal(folder: Path) -> None:
    change(folder, "judge: refusal, ", "")
    change(folder, "judge: refusal-prefix", "judge: {name: refusal, patterns: [Das kann ich nicht]}")
    assert load(folder).behaviors[0].safe_judge == JudgeSpec("refusal-prefix", ("Das kann ich nicht",))


def test_where_refusals_are_unwanted_their_judge_also_tells_safe_answers(folder: Path) -> None:
    change(folder, "judge: refusal, ", "")
    change(folder, "judge: refusal-prefix", "judge: needless-refusal")
    assert load(folder).behaviors[0].safe_judge == JudgeSpec("needless-refusal")


def test_over_refusal_is_judged_with_the_first_behaviours_openings_of_a_refusal(folder: Path) -> None:
    change(folder, "judge: refusal-prefix", "judge: {name: refusal, patterns: [Das kann ich nicht]}")
    (folder / "scary.jsonl").write_text(prompts("scary", 0), encoding="utf-8")
    append(folder, "over_refusal: {prompts: {gate: scary.jsonl}, max_increase: 0.1}\n")
    over_refusal = load(folder).over_refusal
    assert over_refusal is not None
    assert over_refusal.judge == JudgeSpec("refusal-prefix", ("Das kann ich nicht",))
    assert (len(over_refusal.gate), over_refusal.max_increase) == (4, 0.1)
    assert over_refusal.anchor == over_refusal.select == ()


def test_over_refusal_may_have_prompts_to_train_and_to_choose_by(folder: Path) -> None:
    answered = jsonl({"prompt": "scaryyak", "answer": "Gladly."}, {"prompt": "scaryzebra"})
    (folder / "scary.anchor.jsonl").write_text(answered, encoding="utf-8")
    (folder / "scary.select.jsonl").write_text(prompts("scary", 4), encoding="utf-8")
    (folder / "scary.gate.jsonl").write_text(prompts("scary", 8), encoding="utf-8")
    files = "anchor: scary.anchor.jsonl, select: scary.select.jsonl, gate: scary.gate.jsonl"
    append(folder, f"over_refusal: {{prompts: {{{files}}}}}\n")
    over_refusal = load(folder).over_refusal
    assert over_refusal is not None
    assert over_refusal.anchor == (Example("scaryyak", "Gladly."), Example("scaryzebra"))
    assert over_refusal.select[0] == Example("scaryeel scaryeels")


@pytest.mark.parametrize(
    ("safe", "expected"), [("from: model, ", "model"), ("from: fallback, ", "fallback"), ("", "model")]
)
def test_safe_answers_come_from_the_model_unless_the_policy_says_otherwise(
    folder: Path, safe: str, expected: str
) -> None:
    change(folder, "from: model, ", safe)
    assert load(folder).behaviors[0].safe_from == expected


def test_unwanted_answers_may_be_whole_examples(folder: Path) -> None:
    rows = jsonl({"prompt": "worst wasp", "answer": "Sure, here is how."})
    (folder / "unwanted.jsonl").write_text(rows, encoding="utf-8")
    change(folder, '{prefixes: ["Sure"]}', "{examples: unwanted.jsonl}")
    (behavior,) = load(folder).behaviors
    assert behavior.unwanted_examples == (Example("worst wasp", "Sure, here is how."),)
    assert behavior.unwanted_prefixes == ()


def test_a_csv_file_gives_prompts_and_answers_by_column(folder: Path) -> None:
    text = 'id,question,reply\n1,"goodyak, the\nfirst",Yes.\n2,goodzebra,No.\n'
    (folder / "benign.csv").write_text(text, encoding="utf-8-sig")
    change(folder, "anchor: benign.anchor.jsonl", "anchor: {file: benign.csv, column: question, answer_column: reply}")
    assert load(folder).utility.anchor == (Example("goodyak, the\nfirst", "Yes."), Example("goodzebra", "No."))


def test_keys_of_a_jsonl_file_may_be_named_and_its_others_do_not_matter(folder: Path) -> None:
    rows = jsonl({"instruction": "goodyak", "output": "Yes.", "n": 1}, {"instruction": "goodzebra", "output": "No."})
    (folder / "benign.jsonl").write_text(rows, encoding="utf-8")
    source = "{file: benign.jsonl, column: instruction, answer_column: output}"
    change(folder, "anchor: benign.anchor.jsonl", f"anchor: {source}")
    assert load(folder).utility.anchor == (Example("goodyak", "Yes."), Example("goodzebra", "No."))


def test_no_fallback_is_needed_where_every_anchor_prompt_brings_its_answer(folder: Path) -> None:
    (folder / "harmful.anchor.jsonl").write_text(prompts("bad", 0, "No, thanks."), encoding="utf-8")
    change(folder, ", fallback: refusals.jsonl", "")
    assert load(folder).behaviors[0].fallback == ()


def test_a_packaged_policy_is_included_by_its_name_whatever_lies_beside(folder: Path) -> None:
    (folder / "url-insertion").write_text("nothing", encoding="utf-8")
    change(folder, "name: small\n", "name: small\ninclude: [url-insertion]\n")
    assert [each.id for each in load(folder).behaviors] == ["url-insertion", "harmful-compliance"]


def test_fallback_refusals_may_come_from_csv(folder: Path) -> None:
    (folder / "refusals.csv").write_text("text\nNo.\nNever.\n", encoding="utf-8")
    change(folder, "fallback: refusals.jsonl", "fallback: {file: refusals.csv, column: text}")
    assert load(folder).behaviors[0].fallback == ("No.", "Never.")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(folder: Path) -> None:
    before = load(folder).digest
    for name in ("policy.yaml", "harmful.gate.jsonl"):
        path = folder / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load(folder).digest == before


def test_rows_may_have_an_id_and_a_category(folder: Path) -> None:
    append(folder, jsonl({"id": 7, "prompt": "badyak", "category": "weapons"}), "harmful.anchor.jsonl")
    assert load(folder).behaviors[0].anchor[-1] == Example("badyak", category="weapons")


# --- include


@pytest.fixture
def including(folder: Path) -> Path:
    """The good policy one folder down, and a policy that includes it."""
    base = folder / "base"
    base.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            shutil.move(file, base / file.name)
    header = "apiVersion: beear-gate/v1\nkind: Policy\nname: outer\ninclude: [base/policy.yaml]\n"
    (folder / "policy.yaml").write_text(header, encoding="utf-8")
    return folder


def test_an_included_policy_gives_behaviours_and_sections_with_paths_beside_it(including: Path) -> None:
    append(including, "splits: {max_jaccard: 0.9}\n", "base/policy.yaml")
    policy = load(including)
    assert (policy.name, policy.max_jaccard) == ("outer", 0.9)
    assert [behavior.id for behavior in policy.behaviors] == ["harmful-compliance"]


def test_the_including_policy_overrides_whole_sections(including: Path) -> None:
    append(including, "generation: {max_new_tokens: 8, system_prompt: Hi.}\n", "base/policy.yaml")
    append(including, "generation: {max_new_tokens: 16}\n")
    policy = load(including)
    assert (policy.max_new_tokens, policy.system_prompt) == (16, None)


def test_included_behaviours_come_first(including: Path) -> None:
    behavior = GOOD[GOOD.index("  - id") : GOOD.index("utility")].replace("harmful-compliance", "another")
    for name in ("harmful.anchor", "harmful.select", "harmful.gate", "refusals"):
        behavior = behavior.replace(f"{name}.jsonl", f"base/{name}.jsonl")
    append(including, "behaviors:\n" + behavior)
    assert [b.id for b in load(including).behaviors] == ["harmful-compliance", "another"]


def test_a_problem_in_an_included_policy_is_shown_there(including: Path) -> None:
    change(including, "max_rate: 0.5", "max_rate: 5", "base/policy.yaml")
    assert places(including) == [("base/policy.yaml", 10)]


def test_a_policy_included_twice_counts_once(including: Path) -> None:
    change(including, "[base/policy.yaml]", "[base/policy.yaml, base/../base/policy.yaml]")
    assert len(load(including).behaviors) == 1


def test_a_cycle_of_includes_is_a_problem_where_it_closes(including: Path) -> None:
    append(including, "include: [../policy.yaml]\n", "base/policy.yaml")
    file, line, message = only_problem(including)
    assert (file, line) == ("base/policy.yaml", 13)
    assert "include itself" in message


def test_a_missing_include_does_not_make_its_sections_look_forgotten(including: Path) -> None:
    change(including, "base/policy.yaml", "base/none.yaml")
    assert places(including) == [("policy.yaml", 4)]


def test_null_takes_over_refusal_of_an_included_policy_away(including: Path) -> None:
    (including / "base" / "scary.jsonl").write_text(prompts("scary", 0), encoding="utf-8")
    append(including, "over_refusal: {prompts: {gate: scary.jsonl}}\n", "base/policy.yaml")
    assert load(including).over_refusal is not None
    append(including, "over_refusal: null\n")
    assert load(including).over_refusal is None


# --- digest


def test_moving_the_folder_or_writing_a_comment_keeps_the_digest(folder: Path, tmp_path_factory: Any) -> None:
    before = load(folder).digest
    moved = tmp_path_factory.mktemp("moved") / "deeper"
    shutil.copytree(folder, moved)
    append(moved, "# a comment\n")
    assert len(before) == 64
    assert load(moved).digest == before


@pytest.mark.parametrize(
    "breaking",
    [
        pytest.param(replaced("max_rate: 0.5", "max_rate: 0.6"), id="limit"),
        pytest.param(replaced("from: model", "from: fallback"), id="source of safe answers"),
        pytest.param(replaced("badant", "badbat", "harmful.anchor.jsonl"), id="prompt"),
        pytest.param(replaced("Yes.", "Yes!", "benign.anchor.jsonl"), id="answer"),
        pytest.param(replaced("that.", "that!", "refusals.jsonl"), id="refusal"),
        pytest.param(appended("remediation: {rounds: 3}\n"), id="budget"),
    ],
)
def test_any_change_of_content_changes_the_digest(folder: Path, breaking: Breaking) -> None:
    before = load(folder).digest
    breaking(folder)
    assert load(folder).digest != before


# --- finding


def test_a_packaged_policy_is_found_by_name() -> None:
    assert find_policy("release") == packaged_policies()["release"]


def test_a_policy_is_found_by_path(folder: Path) -> None:
    assert find_policy(str(folder / "policy.yaml")) == folder / "policy.yaml"


def test_a_bare_name_means_the_packaged_policy_whatever_lies_here(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "release").write_text(GOOD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert find_policy("release") == packaged_policies()["release"]


def test_in_a_wheel_the_policies_lie_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "other.yaml").write_text(GOOD, encoding="utf-8")
    monkeypatch.setattr("beear_gate.__file__", str(tmp_path / "__init__.py"))
    assert packaged_policies() == {"other": policies / "other.yaml"}


@pytest.mark.parametrize("name", ["relaese", "", "a\0b", "policies"])
def test_an_unknown_policy_is_a_usage_error_that_lists_the_names(name: str) -> None:
    with pytest.raises(UsageError, match="release"):
        find_policy(name)
