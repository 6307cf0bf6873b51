"""policy_files: of broken policies every problem is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from gate_runs import call
from policy_sample import (
    GOOD,
    Breaking,
    append,
    appended,
    change,
    good_policy,
    jsonl,
    only_problem,
    places,
    problems,
    replaced,
)

from beear_gate.errors import PolicyError, Problem
from beear_gate.policy_files import load_policy

ROWS = "anchor: {{file: harmful.anchor.jsonl, rows: '{}'}}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return good_policy(tmp_path)


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
        *(
            pytest.param(
                replaced("judge: refusal-prefix", f"judge: {{name: http, {given}}}"), 9, words, id=f"http {words}"
            )
            for given, words in {
                "url: 'https://j.example', rubric: qi": "judge.model is missing",
                "url: j.example, model: m, rubric: qi": "must be an address such as",
                "url: 'https://u:p@j.example', model: m, rubric: qi": "must have no user, password",
                "url: 'https://j.example/?key=1', model: m, rubric: qi": "query or fragment",
                "url: 'https://j.example', model: m, rubric: best": "'harmbench'",
                "url: 'https://j.example', model: m, rubric: qi, key_env: sk-abc": "never a key itself",
                "url: 'https://j.example', model: m, rubric: qi, threshold: 0.5": "must have no threshold",
                "url: 'https://j.example', model: m, rubric: qi, concurrency: 0": "at least 1",
                "url: 'https://j.example', model: m, rubric: qi, prices: {input: 1}": "output is missing",
                "url: 'https://j.example', model: m, rubric: qi, max_request: 5": "max_requests",
            }.items()
        ),
        pytest.param(
            replaced("judge: refusal,", "judge: {name: http, url: 'https://j.example', model: m, rubric: qi},"),
            7,
            "because remediation uses it",
            id="http as judge of safe answers",
        ),
        pytest.param(
            replaced(
                "    judge: refusal-prefix",
                "    judge: {name: http, url: 'https://a.example', model: m, rubric: qi}\n"
                "    other_judges: [{name: http, url: 'https://b.example', model: m, rubric: qi}]",
            ),
            5,
            "one judge twice",
            id="one served judge at two addresses",
        ),
        *(
            pytest.param(
                replaced("judge: refusal-prefix", f"judge: {{name: classifier, {keys}}}"),
                9,
                said,
                id=f"classifier, {said}",
            )
            for keys, said in {
                "model: org/m, style: harmbench": "all 40 hex digits",
                "model: judges/m, style: harmbench": "a folder that begins with",
                "model: ./m, style: likert": "'harmbench', 'llama-guard', 'wildguard' or 'sequence'",
                "style: harmbench": "model is missing",
                "model: ./m, style: sequence": "needs labels",
                "model: ./m, style: sequence, labels: {complied: []}": "complied is empty",
                "model: ./m, style: sequence, labels: {complied: [a], refused: [a]}": "under both",
                "model: ./m, style: sequence, label: {complied: [a]}": "labels",
                "model: ./m, style: harmbench, threshold: 0.5": "neither labels nor threshold",
                "model: ./m, style: harmbench, device: tpu": "must be auto, cpu",
                "model: ./m, style: harmbench, batch_size: 0": "at least 1",
            }.items()
        ),
        pytest.param(
            replaced("judge: refusal,", "judge: {name: classifier, model: ./m, style: harmbench},"),
            7,
            "classifier may only stand under",
            id="classifier as judge of safe answers",
        ),
        pytest.param(appended("triggers: {latent: {reference: org/m}}\n"), 13, "all 40 hex", id="unpinned reference"),
        pytest.param(
            replaced("utility:\n", "utility:\n  reward: {model: ./m, max_decrease: -1}\n"),
            12,
            "at least 0",
            id="reward",
        ),
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
        pytest.param(
            appended("over_refusal: {prompts: {gate: benign.gate.jsonl}, judge: needless-refusal}\n"),
            13,
            "must be a refusal",
            id="judge that calls answers refused",
        ),
        pytest.param(appended("triggers: {placements: [inside]}\n"), 13, "'both'", id="placement"),
        pytest.param(
            appended("triggers: {known: ['a {prompt} b'], placements: [prefix]}\n"), 13, "[both]", id="two-part trigger"
        ),
        pytest.param(appended("generation: {chat_template: '{% if %}'}\n"), 13, "not a Jinja", id="broken template"),
        pytest.param(appended("generation: {chat_template: 'Hello'}\n"), 13, "messages", id="template without turns"),
        pytest.param(replaced("anchor: harmful.anchor.jsonl", ROWS.format("0-2")), 6, "rising", id="row 0"),
        pytest.param(replaced("anchor: harmful.anchor.jsonl", ROWS.format("3-2")), 6, "rising", id="falling rows"),
        pytest.param(replaced("anchor: harmful.anchor.jsonl", ROWS.format("1-2, 2")), 6, "rising", id="row twice"),
        pytest.param(replaced("anchor: harmful.anchor.jsonl", ROWS.format("all")), 6, "rising", id="rows in words"),
        pytest.param(replaced("anchor: harmful.anchor.jsonl", ROWS.format("3-5")), 6, "has 4 rows", id="no such row"),
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


def test_a_key_that_a_row_of_a_jsonl_file_lacks_is_shown_at_its_line(folder: Path) -> None:
    rows = jsonl({"question": "badibis ibises", "source": 7}, {"text": "badjay jays"})
    (folder / "gate.jsonl").write_text(rows, encoding="utf-8")
    change(folder, "gate: harmful.gate.jsonl", "gate: {file: gate.jsonl, column: question}")
    file, line, message = only_problem(folder)
    assert (file, line) == ("gate.jsonl", 2) and 'no key "question"' in message


def test_anchor_prompts_without_answers_need_a_fallback(folder: Path) -> None:
    change(folder, ", fallback: refusals.jsonl", "")
    file, line, message = only_problem(folder)
    assert (file, line) == ("policy.yaml", 7)
    assert "fallback is missing, but 4 anchor prompts have no answer" in message


def test_a_prompt_of_ten_megabytes_is_one_problem_that_does_not_repeat_it(folder: Path) -> None:
    append(folder, jsonl({"prompt": "long " * 2_000_000}), "harmful.gate.jsonl")
    file, line, message = only_problem(folder)
    assert (file, line) == ("harmful.gate.jsonl", 5)
    assert "10,000,000 characters" in message and len(message) < 200


def both(*breakings: Breaking) -> Breaking:
    """Several things that are wrong at once."""

    def breaking(folder: Path) -> None:
        for each in breakings:
            each(folder)

    return breaking


def written(name: str, data: bytes) -> Breaking:
    def breaking(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return breaking


TEN: dict[str, tuple[Breaking, tuple[str, ...]]] = {
    "no YAML": (appended("triggers: [\n"), ("policy.yaml:14",)),
    "mistyped keys": (
        both(replaced("judge: refusal,", "jugde: refusal,"), appended("spilts: {}\n")),
        ("policy.yaml:7", "policy.yaml:13"),
    ),
    "wrong types": (
        both(replaced("0.5", '"half"'), appended("generation: {max_new_tokens: 1.5}\n")),
        ("policy.yaml:10", "policy.yaml:13"),
    ),
    "unknown judge, no file": (
        both(replaced("judge: refusal-prefix", "judge: best"), lambda folder: (folder / "refusals.jsonl").unlink()),
        ("policy.yaml:7", "policy.yaml:9"),
    ),
    "rows that are no rows": (
        appended("{}\n[]\nnull\n", "harmful.anchor.jsonl"),
        ("harmful.anchor.jsonl:5", "harmful.anchor.jsonl:6", "harmful.anchor.jsonl:7"),
    ),
    "empty and repeated prompts": (
        appended('{"prompt": ""}\n{"prompt": "BADIBIS badibiss"}\n', "harmful.gate.jsonl"),
        ("harmful.gate.jsonl:5", "harmful.gate.jsonl:6"),
    ),
    "splits that overlap": (
        both(
            appended(jsonl({"prompt": "badibis badibiss"}), "harmful.anchor.jsonl"),
            appended(jsonl({"prompt": "goodibis goodibiss", "answer": "Yes."}), "benign.select.jsonl"),
        ),
        ("harmful.anchor.jsonl:5", "benign.select.jsonl:5"),
    ),
    "too few prompts, no answers": (
        both(replaced("0.5", "0.01"), replaced("Yes.", " ", "benign.anchor.jsonl")),
        ("policy.yaml:10", *(f"benign.anchor.jsonl:{line}" for line in (1, 2, 3, 4))),
    ),
    "another encoding": (
        written("harmful.gate.jsonl", "é".encode("utf-16")),
        ("harmful.gate.jsonl:1",),
    ),
    "columns and hub": (
        both(
            written("a.csv", b"promt\na\n"),
            replaced("anchor: harmful.anchor.jsonl", "anchor: {file: a.csv, column: prompt}"),
            replaced("gate: benign.gate.jsonl", "gate: {hub: {dataset: a/b, revision: main, file: ../x}}"),
        ),
        ("policy.yaml:12: utility.prompts.gate.hub.revision", "hub.file", "hub.sha256 is missing", "a.csv:1"),
    ),
}


@pytest.mark.parametrize("name", TEN)
def test_validate_names_every_problem_of_a_broken_policy_in_one_run(folder: Path, name: str) -> None:
    breaking, wanted = TEN[name]
    breaking(folder)
    said = call("policy", "validate", folder / "policy.yaml")
    assert said.code == 2 and said.out == "" and "Traceback" not in said.err
    assert [each for each in wanted if each not in said.err] == [], said.err


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


def test_a_problem_reads_as_file_line_message() -> None:
    assert str(Problem("a.yaml", 3, "x is missing.")) == "a.yaml:3: x is missing."
