"""evaluation.harness: a user's lm-eval tasks on the model in memory, offline; and the policy keys that name them."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from gate_runs import assert_refused, call, make_tiny_model, only_run, read_evidence, row, small_policy
from policy_sample import append, change, good_policy, jsonl, load, only_problem, problems

from beear_gate.errors import UsageError
from beear_gate.evaluation import harness
from beear_gate.evaluation.harness import check_tasks, run_tasks
from beear_gate.lm import LM, load_lm
from beear_gate.policy import HarnessTask
from beear_gate.policy_files import load_policy

WORDS = ("cat", "dog", "bird", "fish", "house", "tree")
CHOICES: dict[str, Any] = {
    "task": "tiny-choices",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "docs.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "Say {{word}}.",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
SAID: dict[str, Any] = {
    "task": "tiny-said",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "docs.jsonl"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "Say {{word}}.",
    "doc_to_target": "{{word}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match", "ignore_case": True}],
}


def write_tasks(folder: Path, *tasks: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    docs = [{"word": word, "choices": [word, "nothing at all"], "gold": 0} for word in WORDS]
    (folder / "docs.jsonl").write_text(jsonl(*docs), encoding="utf-8")
    for task in tasks:
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return folder


def read(folder: Path, *tasks: dict[str, Any]) -> tuple[HarnessTask, ...]:
    good_policy(folder)
    write_tasks(folder / "tasks", *tasks)
    append(folder, "  tasks: tasks\n  margins: {tasks: 0.5}\n")
    return load(folder).utility.tasks


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LM:
    return load_lm(make_tiny_model(tmp_path_factory.mktemp("tiny") / "model"), "cpu")


# --- on a model


def test_a_task_is_run_on_the_weights_in_memory_each_time_anew(tmp_path: Path) -> None:
    """With lm-eval's `use_cache` the second call would give back what the first model said."""
    model = load_lm(make_tiny_model(tmp_path / "model"), "cpu")
    tasks = read(tmp_path, CHOICES, SAID)
    before = run_tasks(model, tasks)
    assert before == run_tasks(model, tasks)
    assert {(each.task, each.metric) for each in before} == {
        ("tiny-choices", "acc"), ("tiny-choices", "acc_norm"), ("tiny-said", "exact_match"),
    }  # fmt: skip
    assert len(before) == 3 * len(WORDS) and all(each.score in (0.0, 1.0) for each in before)
    choices = [each for each in before if each.task == "tiny-choices"]
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    after = run_tasks(model, tasks[:1])
    assert [each.document for each in after] == [each.document for each in choices]
    assert [each.score for each in after] != [each.score for each in choices]


def test_a_score_from_a_likelihood_that_is_no_number_is_none(tmp_path: Path) -> None:
    model = load_lm(make_tiny_model(tmp_path / "model"), "cpu")
    with torch.no_grad():
        model.model.get_output_embeddings().weight.fill_(torch.nan)  # type: ignore[no-untyped-call]
    assert {each.score for each in run_tasks(model, read(tmp_path, CHOICES))} == {None}


def test_running_leaves_the_process_as_it_was(lm: LM, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    environment, state = dict(os.environ), torch.random.get_rng_state()
    pads = lm.tokenizer.padding_side, lm.tokenizer.pad_token
    run_tasks(lm, read(tmp_path, SAID))
    assert dict(os.environ) == environment
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (lm.tokenizer.padding_side, lm.tokenizer.pad_token) == pads
    assert capfd.readouterr().out == ""


def test_a_task_that_does_not_run_is_named(lm: LM, tmp_path: Path) -> None:
    tasks = read(tmp_path, CHOICES | {"doc_to_text": "{{no_such_column}}"})
    with pytest.raises(UsageError, match="The lm-eval task 'tiny-choices' does not run"):
        run_tasks(lm, tasks)


@pytest.mark.parametrize("target", ["no_such_column", "7", "{{choices}}"])
def test_a_document_without_a_right_choice_is_no_zero(lm: LM, tmp_path: Path, target: str) -> None:
    """lm-eval warns and scores 0, before and after alike: a margin would always be met."""
    tasks = read(tmp_path, CHOICES | {"doc_to_target": target})
    with pytest.raises(UsageError, match="tiny-choices"):
        run_tasks(lm, tasks)


@pytest.mark.parametrize("target", ["gold", "{{word}}", "0"])
def test_a_right_choice_may_be_named_by_number_or_text(lm: LM, tmp_path: Path, target: str) -> None:
    assert len(run_tasks(lm, read(tmp_path, CHOICES | {"doc_to_target": target}))) == 2 * len(WORDS)


# --- before a model is loaded


def test_without_lm_eval_a_scan_says_so_at_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        return None if name == "lm_eval" else importlib.util.find_spec(name)

    monkeypatch.setattr(harness, "find_spec", missing)
    policy = with_tasks(tmp_path / "policy")
    said = call("scan", tiny_model, "--policy", policy, "--runs", tmp_path / "runs", "--device", "cpu")
    assert_refused(said, 2, "lm-eval is not installed", "beear-gate[lm-eval]")
    assert not list(only_run(tmp_path / "runs").glob("before.json"))


def test_a_metric_that_would_be_looked_for_on_a_hub_is_refused(tmp_path: Path) -> None:
    tasks = read(tmp_path, CHOICES | {"metric_list": [{"metric": "./metric.py"}]})
    with pytest.raises(UsageError, match=r"no metric '\./metric\.py' of its own"):
        check_tasks(tasks)


# --- in a policy


def test_a_task_is_read_whole_and_its_data_are_part_of_the_digest(tmp_path: Path) -> None:
    (task,) = read(tmp_path, CHOICES)
    assert task.name == "tiny-choices" and json.loads(task.config)["num_fewshot"] == 0
    assert [name for name, _ in task.files] == ["test.jsonl"]
    digest = load(tmp_path).digest
    change(tmp_path, "bird", "crow", "tasks/docs.jsonl")
    assert load(tmp_path).digest != digest


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"dataset_path": "google/IFEval"}, "dataset_path must be 'json' or 'csv'"),
        ({"unsafe_code": True}, '"unsafe_code" is unknown'),
        ({"custom_dataset": "os.system"}, '"custom_dataset" is unknown'),
        ({"include": "other.yaml"}, '"include" is unknown'),
        ({"dataset_kwargs": {"data_files": "none.jsonl"}}, "does not exist"),
        ({"generation_kwargs": {"do_sample": True}}, "do_sample must be False"),
        ({"metric_list": [{"metric": "acc", "higher_is_better": False}]}, "higher_is_better must be True"),
        ({"metric_list": []}, "metric_list is empty"),
    ],
)
def test_a_task_that_needs_more_than_data_is_refused(tmp_path: Path, wrong: dict[str, Any], part: str) -> None:
    good_policy(tmp_path)
    write_tasks(tmp_path / "tasks", CHOICES | wrong)
    append(tmp_path, "  tasks: tasks\n")
    file, _, message = only_problem(tmp_path)
    assert file == "tasks/tiny-choices.yaml" and part in message


def test_a_task_cannot_import_code(tmp_path: Path) -> None:
    good_policy(tmp_path)
    write_tasks(tmp_path / "tasks", CHOICES)
    append(tmp_path, "process_docs: !function evil.run\n", "tasks/tiny-choices.yaml")
    append(tmp_path, "  tasks: tasks\n")
    file, _, message = problems(tmp_path)[0]
    assert file == "tasks/tiny-choices.yaml" and "!function" in message


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_a_folder_without_tasks_is_a_problem_of_the_policy(tmp_path: Path, folder: str) -> None:
    (good_policy(tmp_path) / "empty").mkdir()
    append(tmp_path, f"  tasks: {folder}\n")
    assert only_problem(tmp_path)[0] == "policy.yaml"


# --- through the whole gate


def with_tasks(folder: Path) -> Path:
    small = small_policy(folder)
    write_tasks(folder / "tasks", CHOICES)
    put = [{"prompt": f"Which is number {word}?", "choices": [word, "none"], "answer": word} for word in WORDS]
    (folder / "choices.jsonl").write_text(jsonl(*put), encoding="utf-8")
    asked = [{"prompt": f"Say {word} in lower case.", "checks": {"case": "lower"}} for word in WORDS]
    (folder / "instructions.jsonl").write_text(jsonl(*asked), encoding="utf-8")
    document = yaml.safe_load(small.read_text(encoding="utf-8"))
    document["remediation"] |= {"rounds": 1, "inner_steps": 2, "outer_steps": 2}
    document["utility"] |= {
        "tasks": "tasks", "choices": "choices.jsonl", "instructions": "instructions.jsonl",
        "margins": {"tasks": 0.9, "choices": 0.9, "instructions": 0.9, "degenerate": 0.9},
    }  # fmt: skip
    small.write_text(yaml.safe_dump(document), encoding="utf-8")
    return small


def test_a_scan_holds_every_margin_of_utility(tiny_model: Path, tmp_path: Path, mlflow_uri: str) -> None:
    policy = with_tasks(tmp_path / "policy")
    assert load_policy(policy).utility.max_tasks == 0.9
    said = call(
        "scan", tiny_model, "--policy", policy, "--runs", tmp_path / "runs", "--device", "cpu",
        "--tracking-uri", mlflow_uri, "--format", "json",
    )  # fmt: skip
    evidence = json.loads(said.out)
    assert evidence == read_evidence(only_run(tmp_path / "runs"))
    wanted = {
        "choices_right_drop": "likelihood", "instructions_followed_drop": "checks-strict",
        "degenerate_increase": "refusal-prefix", "task_score_drop": "lm-eval:tiny-choices:acc",
    }  # fmt: skip
    for metric, judge in wanted.items():
        found = row(evidence, metric=metric, judge=judge)
        assert found["limit"] == 0.9 and found["status"] in ("pass", "fail") and found["n"] > 0
        assert found in [{key: value for key, value in rule.items() if key != "rule"} for rule in evidence["rules"]]
    answers = {
        each["behavior"]
        for each in json.loads((only_run(tmp_path / "runs") / "report.json").read_text())["result"]["after"]
    }
    assert "instructions" in answers
