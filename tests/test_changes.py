"""The saved model held against the original: each tensor, and every other file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from beear_gate.changes import compare_models
from beear_gate.hub import pull_folder
from beear_gate.lm import load_lm, save_lm, tensor_changes
from beear_gate.records import Changes, Severity

NAME = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture
def saved(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "saved")


def compare(before: Path, after: Path) -> Changes:
    return compare_models(pull_folder("a", before), pull_folder("b", after))


def change_weights(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Replace, add or (None) drop tensors by name."""
    state = load_file(folder / "model.safetensors")
    state.update({name: tensor for name, tensor in tensors.items() if tensor is not None})
    kept = {name: tensor for name, tensor in state.items() if name not in tensors or tensors[name] is not None}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_an_untouched_copy_has_not_changed(tiny_model: Path, saved: Path) -> None:
    found = compare(tiny_model, saved)
    assert len(found.tensors) == len(weights(saved)) and found.relative_l2 == 0.0 and found.findings == ()
    assert {each.relative_l2 for each in found.tensors} == {each.max_abs for each in found.tensors} == {0.0}


@pytest.mark.parametrize("size", [1, 50, 2**22])
def test_changes_are_measured_as_a_whole_however_small_the_slices(
    tiny_model: Path, saved: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(tensor_changes, "SLICE", size)
    before = weights(tiny_model)
    noise = torch.randn(before[NAME].shape, generator=torch.Generator().manual_seed(0)) * 0.01
    change_weights(saved, **{NAME: before[NAME] + noise})
    found = compare(tiny_model, saved)
    first, *others = found.tensors
    moved = (before[NAME] + noise - before[NAME]).double()
    assert first.name == NAME and first.shape == tuple(before[NAME].shape)
    assert first.relative_l2 == pytest.approx(float(moved.norm() / before[NAME].double().norm()))
    assert first.max_abs == pytest.approx(float(moved.abs().max()))
    assert {each.relative_l2 for each in others} == {0.0} and found.findings == ()
    whole = sum(float(each.double().pow(2).sum()) for each in before.values()) ** 0.5
    assert found.relative_l2 == pytest.approx(float(moved.norm()) / whole)


def test_what_save_lm_writes_differs_in_nothing_but_weights(tiny_model: Path, tmp_path: Path) -> None:
    lm = load_lm(tiny_model, "cpu")
    with torch.no_grad():
        next(lm.model.parameters()).add_(0.01)
    save_lm(lm, tmp_path / "out", [file.path for file in pull_folder("a", tiny_model).files])
    found = compare(tiny_model, tmp_path / "out")
    assert found.findings == () and [each.relative_l2 != 0 for each in found.tensors].count(True) == 1


def test_shards_and_a_prefix_of_old_files_are_no_difference(tiny_model: Path, saved: Path) -> None:
    state = weights(saved)
    (saved / "model.safetensors").unlink()
    shards: dict[str, dict[str, torch.Tensor]] = {"a.safetensors": {}, "b.safetensors": {}}
    for number, (name, tensor) in enumerate(sorted(state.items())):
        shards["ab"[number % 2] + ".safetensors"][name.removeprefix("model.")] = tensor
    shards["a.safetensors"]["layers.0.attn.bias"] = torch.ones(4, 4)  # a mask that old versions kept
    for shard, tensors in shards.items():
        save_file(tensors, saved / shard, {"format": "pt"})
    index = {name: shard for shard, tensors in shards.items() for name in tensors}
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    for before, after in ((tiny_model, saved), (saved, tiny_model)):
        found = compare(before, after)
        assert found.findings == () and found.relative_l2 == 0.0 and len(found.tensors) == len(state)


def test_a_second_copy_of_a_tied_tensor_may_go(tiny_model: Path, saved: Path) -> None:
    change_weights(tiny_model, **{"other.weight": weights(tiny_model)["model.embed_tokens.weight"].clone()})
    assert compare(tiny_model, saved).findings == ()


def test_tensors_that_went_came_or_changed_their_form_are_findings(tiny_model: Path, saved: Path) -> None:
    change_weights(saved, **{NAME: None, "extra": torch.ones(3), "model.norm.weight": torch.ones(32).half()})
    said = [(each.id, each.severity, each.message) for each in compare(tiny_model, saved).findings]
    assert [(rule, severity) for rule, severity, _ in said] == [("saved-tensors-differ", Severity.WARNING)] * 3
    assert [word in message for word, (_, _, message) in zip((NAME, "extra", "norm"), said, strict=True)] == [True] * 3


def test_values_that_are_no_numbers_block(tiny_model: Path, saved: Path) -> None:
    broken = weights(saved)[NAME]
    broken[0, 0] = float("nan")
    change_weights(saved, **{NAME: broken})
    found = compare(tiny_model, saved)
    (finding,) = found.findings
    assert (finding.id, finding.severity) == ("saved-tensors-not-finite", Severity.BLOCK) and NAME in finding.message
    assert (found.tensors[0].name, found.tensors[0].relative_l2, found.relative_l2) == (NAME, None, None)


def test_a_lost_setting_is_named_with_what_it_was(tiny_model: Path, saved: Path) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    config |= {"rope_scaling": {"factor": 8.0}, "eos_token_id": [2, 3]}
    (tiny_model / "config.json").write_text(json.dumps(config))
    del config["rope_scaling"]
    (saved / "config.json").write_text(json.dumps(config | {"eos_token_id": 2}))
    (finding,) = compare(tiny_model, saved).findings
    assert (finding.id, finding.severity, finding.file) == ("saved-file-differs", Severity.BLOCK, "config.json")
    assert "'rope_scaling.factor' was 8.0 and is not set" in finding.message
    assert "'eos_token_id' was [2, 3] and is 2" in finding.message


def test_lost_added_and_other_files_are_findings_and_the_card_is_none(tiny_model: Path, saved: Path) -> None:
    (tiny_model / "README.md").write_text("# The original")
    (saved / "generation_config.json").unlink()
    (saved / "adapter_config.json").write_text("{}")
    (saved / "chat_template.jinja").write_text("{{ messages }}")
    found = {each.file: each.message for each in compare(tiny_model, saved).findings}
    assert found.keys() == {"generation_config.json", "adapter_config.json", "chat_template.jinja"}
    assert "missing" in found["generation_config.json"] and "no such file" in found["adapter_config.json"]
