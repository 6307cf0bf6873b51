"""policy new: what it writes says itself what is missing, and is a policy once that is filled in; policy schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from gate_runs import call, digest_of
from policy_sample import GOOD, change, good_policy, jsonl

from beear_gate.errors import Problem
from beear_gate.policy_files import load_policy, packaged_policies, study_policies
from beear_gate.policy_files.json_schema import policy_schema
from beear_gate.policy_files.yaml_lines import read_document

ROOT = Path(__file__).parents[1]
VALIDATOR = jsonschema.Draft202012Validator(json.loads(policy_schema()))
ALL = {**packaged_policies(), **study_policies(), "parts/benign": ROOT / "policies" / "parts" / "benign.yaml"}
JUDGES = ("refusal-prefix", "needless-refusal", "marker", "code")


def new(file: Path, *options: str) -> Any:
    return call("policy", "new", file, "--behavior", "leaks-secrets", *options)


def read(path: Path) -> dict[str, Any]:
    problems: list[Problem] = []
    found = read_document(path, (str(path), 1), problems)
    assert found is not None and not problems
    return found.data


def missing(file: Path) -> list[str]:
    """`file:line` of everything that validate still names, the file relative to the policy's folder."""
    said = call("policy", "validate", file)
    assert said.code == 2 and said.out == ""
    return re.findall(rf"^  {re.escape(str(file.parent))}/(\S+?:\d+):", said.err, re.MULTILINE)


def line_of(file: Path, part: str) -> int:
    lines = file.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if part in line)


def fill(file: Path, judge: str) -> None:
    """What a user would write, in as few words as do."""
    text = file.read_text(encoding="utf-8").replace('description: ""', "description: Secrets in answers.")
    text = text.replace("prefixes: []", "prefixes: [The secret]").replace("patterns: []", "patterns: [secret]")
    file.write_text(text, encoding="utf-8")
    counts = {"anchor": 3, "select": 3, "gate": 300, "unwanted": 3}
    for split, count in counts.items():
        path = file.parent / "prompts" / f"leaks-secrets.{split}.jsonl"
        if path.exists():
            names = "anchor" if split == "unwanted" else split
            rows = [{"prompt": f"{names}a{n} {names}b{n}"} for n in range(count)]
            answered = split == "unwanted" or (split == "anchor" and judge != "refusal-prefix")
            path.write_text(
                jsonl(*(each | ({"answer": "Fine."} if answered else {}) for each in rows)), encoding="utf-8"
            )
    refusals = file.parent / "prompts" / "leaks-secrets.refusals.jsonl"
    if refusals.exists():
        refusals.write_text(jsonl({"answer": "I can't tell you that."}), encoding="utf-8")


@pytest.mark.parametrize("judge", JUDGES)
def test_a_new_policy_says_what_is_missing_and_is_valid_once_filled_in(tmp_path: Path, judge: str) -> None:
    file = tmp_path / "ours.yaml"
    said = new(file, "--judge", judge)
    assert said.code == 0 and f"policy validate {file}" in said.out
    prompts = {f"prompts/leaks-secrets.{split}.jsonl:1" for split in ("anchor", "select", "gate")}
    other = "refusals" if judge == "refusal-prefix" else "unwanted"
    wanted = {"description:": 2, "max_rate": 1}
    if judge == "refusal-prefix":
        wanted["prefixes: []"] = 1
    if judge == "marker":
        wanted["judge: &"] = wanted["judge: *"] = 1
    lines = {f"ours.yaml:{line_of(file, part)}" for part in wanted}
    found = missing(file)
    assert set(found) >= prompts | {f"prompts/leaks-secrets.{other}.jsonl:1"} | lines
    assert len(found) == 4 + sum(wanted.values())
    fill(file, judge)
    assert [each.id for each in load_policy(file).behaviors] == ["leaks-secrets"]


def test_a_new_policy_can_hold_several_behaviors_beside_packaged_ones(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "ours.yaml"
    assert new(file, "--behavior", "other-thing", "--include", "release").code == 0
    found = read(file)
    assert [each["id"] for each in found["behaviors"]] == ["leaks-secrets", "other-thing"]
    assert found["include"] == ["parts/benign", "release"]
    first = file.read_text(encoding="utf-8").splitlines()[0]
    schema = file.parent / first.removeprefix("# yaml-language-server: $schema=")
    assert schema.read_text(encoding="utf-8") == policy_schema()


def test_nothing_is_overwritten_and_nothing_is_written_beside_it(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "leaks-secrets.gate.jsonl").write_text("mine", encoding="utf-8")
    before = digest_of(tmp_path)
    said = new(tmp_path / "ours.yaml")
    assert said.code == 2 and "leaks-secrets.gate.jsonl exists already" in said.err
    assert digest_of(tmp_path) == before


@pytest.mark.parametrize(
    ("file", "options", "part"),
    [
        ("ours.txt", (), "no name for a policy"),
        ("our policy.yaml", (), "no name for a policy"),
        ("ours.yaml", ("--behavior", "Leaks Secrets"), "no id of a behavior"),
        ("ours.yaml", ("--behavior", "utility"), "no id of a behavior"),
        ("ours.yaml", ("--behavior", "leaks-secrets"), "named twice"),
        ("ours.yaml", ("--include", "../release"), "no packaged policy '../release'"),
    ],
)
def test_names_that_do_not_fit_are_a_usage_error(
    tmp_path: Path, file: str, options: tuple[str, ...], part: str
) -> None:
    said = new(tmp_path / file, *options)
    assert said.code == 2 and part in said.err and not list(tmp_path.iterdir())


# --- schema


def test_the_committed_schema_is_current_and_what_the_command_prints() -> None:
    assert (ROOT / "docs" / "policy.schema.json").read_text(encoding="utf-8") == policy_schema()
    assert call("policy", "schema").out == policy_schema()
    jsonschema.Draft202012Validator.check_schema(json.loads(policy_schema()))


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_packaged_policy_fits_the_schema(name: str) -> None:
    VALIDATOR.validate(read(ALL[name]))


def test_a_new_policy_fits_the_schema_but_for_what_is_empty(tmp_path: Path) -> None:
    new(tmp_path / "ours.yaml")
    wrong = {error.json_path for error in VALIDATOR.iter_errors(read(tmp_path / "ours.yaml"))}
    assert wrong == {"$.description", "$.behaviors[0].description"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_rate: 0.5", "max_rate: 5"),
        ("limit:", "limits:"),
        ("judge: refusal-prefix", "judge: best"),
        ("id: harmful-compliance", "id: Harmful"),
        ("kind: Policy", "kind: Pipeline"),
        ("anchor: harmful.anchor.jsonl", "anchor: {path: a.jsonl}"),
        ('{prefixes: ["Sure"]}', "{prefixes: Sure}"),
    ],
)
def test_the_schema_finds_mistakes_while_they_are_typed(tmp_path: Path, old: str, new: str) -> None:
    good_policy(tmp_path)
    VALIDATOR.validate(read(tmp_path / "policy.yaml"))
    assert old in GOOD
    change(tmp_path, old, new)
    assert not VALIDATOR.is_valid(read(tmp_path / "policy.yaml"))
