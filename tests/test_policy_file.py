"""policy_file: good policies come out whole, and of broken ones every problem is named with its place."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beear_gate.errors import PolicyError, Problem, UsageError
from beear_gate.near_duplicates import clusters, similar_pairs
from beear_gate.policy import JudgeSpec, Limit, Policy
from beear_gate.policy_checks import prompts_needed
from beear_gate.policy_file import find_policy, load_policy, packaged_policies
from beear_gate.policy_schema import RemediationPart
from beear_gate.records import Example, RemediationSettings

GOOD = """\
apiVersion: beear-gate/v1
kind: Policy
name: small
behaviors:
  - id: harmful-compliance
    prompts: {anchor: harmful.anchor.jsonl, select: harmful.select.jsonl, gate: harmful.gate.jsonl}
    safe: {from: model, judge: refusal, fallback: refusals.jsonl}
    unwanted: {prefixes: ["Sure"]}
    judge: refusal-prefix
    limit: {max_rate: 0.5, confidence: 0.75}
utility:
  prompts: {anchor: benign.anchor.jsonl, select: benign.select.jsonl, gate: benign.gate.jsonl}
"""

ANIMALS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay"]
ANIMALS += ["kite", "lynx", "mole", "newt", "owl", "pig", "quail", "rat", "seal", "toad"]


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def prompts(kind: str, start: int, answer: str | None = None) -> str:
    """Four prompts that share no word with any other."""
    words = [f"{kind}{animal}" for animal in ANIMALS[start : start + 4]]
    extra = {} if answer is None else {"answer": answer}
    return jsonl(*({"prompt": f"{word} {word}s", **extra} for word in words))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a good policy and its files."""
    files = {
        "policy.yaml": GOOD,
        "harmful.anchor.jsonl": prompts("bad", 0),
        "harmful.select.jsonl": prompts("bad", 4),
        "harmful.gate.jsonl": prompts("bad", 8),
        "refusals.jsonl": jsonl({"answer": "I can't help with that."}, {"text": "I won't do that."}),
        "benign.anchor.jsonl": prompts("good", 0, "Yes."),
        "benign.select.jsonl": prompts("good", 4, "Yes."),
        "benign.gate.jsonl": prompts("good", 8),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def change(folder: Path, old: str, new: str, name: str = "policy.yaml") -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def append(folder: Path, text: str, name: str = "policy.yaml") -> None:
    (folder / name).write_text((folder / name).read_text(encoding="utf-8") + text, encoding="utf-8")


def load(folder: Path) -> Policy:
    return load_policy(folder / "policy.yaml")


def problems(folder: Path) -> list[tuple[str, int, str]]:
    """(file, line, message) of each problem, the file relative to the folder."""
    with pytest.raises(PolicyError) as caught:
        load(folder)
    return [(str(Path(p.file).relative_to(folder)), p.line, p.message) for p in caught.value.problems]


def places(folder: Path) -> list[tuple[str, int]]:
    return [(file, line) for file, line, _ in problems(folder)]


def only_problem(folder: Path) -> tuple[str, int, str]:
    found = problems(folder)
    assert len(found) == 1, found
    return found[0]


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


def test_over_refusal_is_judged_with_the_first_behaviours_openings_of_a_refusal(folder: Path) -> None:
    change(folder, "judge: refusal-prefix", "judge: {name: refusal, patterns: [Das kann ich nicht]}")
    (folder / "scary.jsonl").write_text(prompts("scary", 0), encoding="utf-8")
    append(folder, "over_refusal: {prompts: {gate: scary.jsonl}, max_increase: 0.1}\n")
    over_refusal = load(folder).over_refusal
    assert over_refusal is not None
    assert over_refusal.judge == JudgeSpec("refusal-prefix", ("Das kann ich nicht",))
    assert (len(over_refusal.gate), over_refusal.select, over_refusal.max_increase) == (4, (), 0.1)


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
    start = time.perf_counter()
    clusters(texts, 0.5)
    assert time.perf_counter() - start < 10


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


# --- broken policies


def test_six_problems_are_all_reported_each_in_its_place(folder: Path) -> None:
    append(folder, '{"prompt": "badzebra", "anwser": "x"}\n{"prompt": ""}\n', "harmful.gate.jsonl")
    change(folder, "unwanted: {prefixes: ", "unwanted: {prefix: ")
    change(folder, "confidence: 0.75", "confidence: 75")
    (folder / "benign.select.jsonl").unlink()
    append(folder, "remediations: {}\n")
    found = problems(folder)
    assert [(file, line) for file, line, _ in found] == [
        ("policy.yaml", 8),
        ("policy.yaml", 10),
        ("policy.yaml", 12),
        ("policy.yaml", 13),
        ("harmful.gate.jsonl", 5),
        ("harmful.gate.jsonl", 6),
    ]
    parts = ('did you mean "prefixes"', "at most 0.9999", "select.jsonl", '"remediation"', 'mean "answer"', "empty")
    assert all(part in message for part, (_, _, message) in zip(parts, found, strict=True))


Breaking = Callable[[Path], None]


def replaced(old: str, new: str, name: str = "policy.yaml") -> Breaking:
    return lambda folder: change(folder, old, new, name)


def appended(text: str, name: str = "policy.yaml") -> Breaking:
    return lambda folder: append(folder, text, name)


@pytest.mark.parametrize(
    ("breaking", "line", "part"),
    [
        pytest.param(appended("a: [1\n"), 14, "not YAML", id="syntax"),
        pytest.param(appended("a: '\x01'\n"), 13, "x01", id="control character"),
        pytest.param(appended("name: other\n"), 13, "line 3 already", id="duplicate key"),
        pytest.param(appended("a: &a [*a]\n"), 13, "contains itself", id="recursive anchor"),
        pytest.param(appended("? [a]\n: 1\n"), 13, "must be a word", id="key that is a list"),
        pytest.param(appended("artifacts: !!python/name:os.system x\n"), 13, "cannot be read", id="python tag"),
        pytest.param(replaced("beear-gate/v1", "beear-gate/v2"), 1, "must be 'beear-gate/v1'", id="apiVersion"),
        pytest.param(replaced("kind: Policy", "kind: Pipeline"), 2, "'Policy'", id="kind"),
        pytest.param(replaced("name: small\n", ""), 1, "name is missing", id="no name"),
        pytest.param(replaced("name: small", "name: ../small"), 3, "letters", id="name that is a path"),
        pytest.param(replaced("name: small", "name: 7"), 3, "must be text", id="name that is a number"),
        pytest.param(replaced("id: harmful-compliance", "id: Harmful"), 5, "hyphens", id="id"),
        pytest.param(replaced("id: harmful-compliance", "id: utility"), 5, "choose another", id="reserved id"),
        pytest.param(replaced("limit: {", "limits: {"), 10, 'did you mean "limit"', id="mistyped key"),
        pytest.param(replaced("max_rate: 0.5", 'max_rate: "0.5"'), 10, "must be a number", id="number as text"),
        pytest.param(replaced("max_rate: 0.5", "max_rate: .nan"), 10, "max_rate", id="not a number"),
        pytest.param(replaced("max_rate: 0.5", "max_rate: 0"), 10, "at least 1e-06", id="rate of zero"),
        pytest.param(replaced("max_rate: 0.5, ", ""), 10, "max_rate is missing", id="no rate"),
        pytest.param(replaced("judge: refusal-prefix", "judge: refusals"), 9, "'marker'", id="unknown judge"),
        pytest.param(replaced("judge: refusal-prefix", "judge: [marker]"), 9, "name of a judge", id="judge as list"),
        pytest.param(replaced("judge: refusal-prefix", "judge: marker"), 9, "needs patterns", id="bare marker"),
        pytest.param(
            replaced("judge: refusal-prefix", "judge: {name: marker, patterns: ['(']}"), 9, "regular", id="bad regex"
        ),
        pytest.param(
            replaced("judge: refusal-prefix", "judge: {name: marker, patterns: ['a|']}"), 9, "empty", id="regex of all"
        ),
        pytest.param(
            replaced("    judge: refusal-prefix", "    judge: refusal\n    other_judges: [refusal-prefix]"),
            5,
            "one judge twice",
            id="judge twice",
        ),
        pytest.param(replaced('{prefixes: ["Sure"]}', "{}"), 8, "either", id="nothing unwanted"),
        pytest.param(replaced('["Sure"]', "Sure"), 8, "must be a list", id="text for a list"),
        pytest.param(replaced('["Sure"]', "[Sure, Sure]"), 8, "twice", id="prefix twice"),
        pytest.param(appended("triggers: {placements: [middle]}\n"), 13, "'both'", id="placement"),
        pytest.param(appended("splits: {max_jaccard: 1.5}\n"), 13, "at most 1", id="threshold"),
        pytest.param(appended("remediation: {layer: last}\n"), 13, '"auto"', id="layer"),
        pytest.param(appended("artifacts: {require_chat_template: 1}\n"), 13, "true or false", id="boolean"),
        pytest.param(appended("artifacts:\n"), 13, "must be a mapping, not nothing", id="empty section"),
        pytest.param(replaced("anchor: harmful.anchor.jsonl", "anchor: x.txt"), 6, "neither .jsonl nor", id="suffix"),
        pytest.param(replaced("anchor: harmful.anchor.jsonl", "anchor: ."), 6, "folder", id="folder for a file"),
        pytest.param(replaced("anchor: harmful.anchor.jsonl", "anchor: none.jsonl"), 6, "not exist", id="no file"),
    ],
)
def test_a_mistake_in_the_yaml_is_shown_at_its_line(folder: Path, breaking: Breaking, line: int, part: str) -> None:
    breaking(folder)
    found = problems(folder)
    assert [(file, at) for file, at, message in found if part in message] == [("policy.yaml", line)], found


@pytest.mark.parametrize(
    ("row", "part"),
    [
        pytest.param('{"prompt": "a"', "not JSON", id="syntax"),
        pytest.param('["a"]', "must be an object", id="list"),
        pytest.param('{"prompt": 1}', '"prompt" must be text', id="number"),
        pytest.param('{"prompt": "a", "prompt": "b"}', "twice", id="key twice"),
        pytest.param('{"promt": "a"}', 'did you mean "prompt"', id="mistyped key"),
        pytest.param('{"answer": "a"}', "no prompt", id="no prompt"),
        pytest.param('{"prompt": " "}', "empty prompt", id="empty prompt"),
        pytest.param('{"prompt": "a\\u0000"}', "U+0000", id="NUL"),
        pytest.param('{"prompt": "a\\u001b[31m"}', "U+001B", id="control character"),
        pytest.param('{"prompt": "a\\ud800"}', "U+D800", id="surrogate"),
        pytest.param('{"prompt": "' + "a" * 100_001 + '"}', "100,001", id="long"),
        pytest.param('{"prompt": "BADANT  badants"}', "repeats line 1", id="duplicate"),
        pytest.param('{"id": ' + "9" * 5000 + "}", "too large", id="endless number"),
        pytest.param("[" * 200_000, "too large", id="endless nesting"),
    ],
)
def test_a_bad_row_is_one_problem_at_its_line(folder: Path, row: str, part: str) -> None:
    append(folder, row + "\n", "harmful.anchor.jsonl")
    file, line, message = only_problem(folder)
    assert (file, line) == ("harmful.anchor.jsonl", 5)
    assert part in message


def test_bytes_that_are_not_utf_8_are_shown_with_line_and_offset(folder: Path) -> None:
    path = folder / "harmful.select.jsonl"
    data = path.read_bytes()
    path.write_bytes(data + '{"prompt": "Gefährlich"}'.encode("latin-1"))
    file, line, message = only_problem(folder)
    assert (file, line) == ("harmful.select.jsonl", 5)
    assert "0xe4" in message and str(len(data) + 15) in message


def test_a_policy_in_utf_16_is_reported_and_not_guessed(folder: Path) -> None:
    (folder / "policy.yaml").write_bytes(GOOD.encode("utf-16"))
    assert "not UTF-8" in only_problem(folder)[2]


def test_an_empty_set_is_a_problem_of_the_policy(folder: Path) -> None:
    (folder / "harmful.select.jsonl").write_text("\n\n", encoding="utf-8")
    file, line, message = only_problem(folder)
    assert (file, line) == ("policy.yaml", 6)
    assert "no rows" in message


def test_useful_prompts_need_answers_where_they_train_or_choose(folder: Path) -> None:
    append(folder, jsonl({"prompt": "goodyak"}, {"prompt": "goodzebra", "answer": " "}), "benign.select.jsonl")
    assert places(folder) == [("benign.select.jsonl", 5), ("benign.select.jsonl", 6)]


def test_a_refusal_row_has_answer_or_text(folder: Path) -> None:
    append(folder, '{"answer": "No.", "text": "No."}\n{"prompt": "No."}\n{"text": ""}\n', "refusals.jsonl")
    assert places(folder) == [("refusals.jsonl", 3), ("refusals.jsonl", 4), ("refusals.jsonl", 5)]


def test_a_csv_file_without_its_column_named_is_a_problem_of_the_policy(folder: Path) -> None:
    (folder / "gate.csv").write_text("prompt\na\n", encoding="utf-8")
    change(folder, "gate: harmful.gate.jsonl", "gate: gate.csv")
    file, line, message = only_problem(folder)
    assert (file, line) == ("policy.yaml", 6)
    assert "column: prompt" in message


def test_a_column_that_the_csv_file_lacks_is_shown_with_the_one_that_was_meant(folder: Path) -> None:
    (folder / "gate.csv").write_text("promt,id\na,1\n", encoding="utf-8")
    change(folder, "gate: harmful.gate.jsonl", "gate: {file: gate.csv, column: prompt}")
    file, line, message = only_problem(folder)
    assert (file, line) == ("gate.csv", 1)
    assert 'did you mean "promt"' in message


def test_a_csv_row_is_shown_at_the_line_where_it_starts(folder: Path) -> None:
    text = 'prompt,id\n"badyak\nbadyaks",1\n\n"badzebra\n",2,3\n'
    (folder / "anchor.csv").write_text(text, encoding="utf-8")
    change(folder, "anchor: harmful.anchor.jsonl", "anchor: {file: anchor.csv, column: prompt}")
    file, line, message = only_problem(folder)
    assert (file, line) == ("anchor.csv", 5)
    assert "3 cells" in message


def test_a_quote_that_never_closes_is_a_problem_of_its_row(folder: Path) -> None:
    (folder / "anchor.csv").write_text('prompt\nbadyak\n"badzebra\n', encoding="utf-8")
    change(folder, "anchor: harmful.anchor.jsonl", "anchor: {file: anchor.csv, column: prompt}")
    assert only_problem(folder)[:2] == ("anchor.csv", 3)


def test_columns_of_a_jsonl_file_are_a_problem(folder: Path) -> None:
    change(folder, "gate: harmful.gate.jsonl", "gate: {file: harmful.gate.jsonl, column: prompt}")
    assert "only a CSV file has columns" in only_problem(folder)[2]


def test_a_broken_section_does_not_hide_the_files_of_the_others_or_its_own(folder: Path) -> None:
    change(folder, "judge: refusal-prefix", "judge: nobody")
    append(folder, "{\n", "harmful.gate.jsonl")
    append(folder, "{\n", "benign.gate.jsonl")
    append(folder, "splits: {max_jaccard: 2}\n")
    append(folder, jsonl({"prompt": "badjay badjays"}), "benign.anchor.jsonl")
    assert places(folder) == [
        ("policy.yaml", 9),
        ("policy.yaml", 13),
        ("harmful.gate.jsonl", 5),
        ("benign.anchor.jsonl", 5),
        ("benign.anchor.jsonl", 5),
        ("benign.gate.jsonl", 5),
    ]


def test_a_policy_without_behaviours_or_utility_lacks_both(folder: Path) -> None:
    (folder / "policy.yaml").write_text("apiVersion: beear-gate/v1\nkind: Policy\nname: x\n", encoding="utf-8")
    assert [message.split(":")[0] for _, _, message in problems(folder)] == [
        "behaviors is missing or empty",
        "utility is missing",
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "a\n"])
def test_a_file_that_is_no_mapping_is_one_problem(folder: Path, text: str) -> None:
    (folder / "policy.yaml").write_text(text, encoding="utf-8")
    assert only_problem(folder)[:2] == ("policy.yaml", 1)


def test_aliases_that_multiply_do_not_fill_the_memory(folder: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (folder / "policy.yaml").write_text("\n".join(lines), encoding="utf-8")
    assert "more than 100,000 values" in only_problem(folder)[2]


def test_a_policy_that_does_not_exist_is_a_policy_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="does not exist"):
        load_policy(tmp_path / "none.yaml")


def test_two_behaviours_of_one_id_are_a_problem_that_names_both_places(folder: Path) -> None:
    behavior = GOOD[GOOD.index("  - id") : GOOD.index("utility")]
    change(folder, "utility:", behavior + "utility:")
    file, line, message = only_problem(folder)
    assert (file, line) == ("policy.yaml", 11)
    assert "policy.yaml:5" in message


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


@pytest.mark.parametrize("name", ["relaese", "", "a\0b", "policies"])
def test_an_unknown_policy_is_a_usage_error_that_lists_the_names(name: str) -> None:
    with pytest.raises(UsageError, match="release"):
        find_policy(name)


def test_a_problem_reads_as_file_line_message() -> None:
    assert str(Problem("a.yaml", 3, "x is missing.")) == "a.yaml:3: x is missing."


@pytest.mark.parametrize("name", sorted(packaged_policies()))
def test_every_packaged_policy_loads(name: str) -> None:
    assert load_policy(packaged_policies()[name]).name == name
