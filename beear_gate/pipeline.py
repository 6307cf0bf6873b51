"""How a scan is to run: packaged or own pipeline files, command-line options over them, and what a run was asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from beear_gate.errors import UsageError
from beear_gate.redact import without_credentials
from beear_gate.request import MAX_PULL_GB, Sandbox

HERE = Path(__file__).parent


class Settings(BaseModel):
    """How to run, whatever the model: what a pipeline file and the command line can both say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str = "release"
    runs: str = "runs"
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 0
    batch_size: int = Field(default=64, ge=1)
    max_pull_gb: float = Field(default=MAX_PULL_GB, gt=0)
    memory: str | None = None
    processes: int = Field(default=1, ge=1)
    vllm: str | None = None
    remediate: bool = True
    sandbox: Literal["none", "docker"] = "none"
    sandbox_image: str = Sandbox.image
    sandbox_memory_gb: float | None = Field(default=None, gt=0)
    sandbox_cpus: float | None = Field(default=None, gt=0)
    sandbox_pids: int = Field(default=Sandbox.pids, ge=1)
    sandbox_minutes: float = Field(default=Sandbox.minutes, gt=0)
    convert: bool = False
    tracking_uri: str | None = None
    experiment: str = "beear-gate"


class Options(Settings):
    """Everything a run can be told; `organism` is what a demo grows and scans."""

    model: str
    revision: str | None = None
    command: Literal["scan", "evaluate", "remediate", "demo"] = "scan"
    output: str | None = None
    organism: str | None = None

    def container(self) -> Sandbox | None:
        """Where the model is loaded; None for the process of the scan.

        Raises:
            UsageError: pickles are to be converted, and there is no sandbox to do it in; or there is one for vLLM.
        """
        if self.sandbox == "none":
            if self.convert:
                raise UsageError("--convert loads pickles, in a sandbox alone.", "Give --sandbox docker too.")
            return None
        if self.vllm:
            raise UsageError("--vllm and --sandbox do not go together: vLLM would run outside it.", "Give one of them.")
        return Sandbox(
            image=self.sandbox_image,
            memory_gb=self.sandbox_memory_gb,
            cpus=self.sandbox_cpus,
            pids=self.sandbox_pids,
            minutes=self.sandbox_minutes,
        )

    def as_json(self) -> str:
        """The options as the run directory keeps them: without a password that the tracking URI may hold."""
        uri = without_credentials(self.tracking_uri) if self.tracking_uri else None
        return self.model_copy(update={"tracking_uri": uri}).model_dump_json(indent=2) + "\n"


class PipelineFile(Settings):
    """A pipeline file; `model` is for those that are about one model, such as a study that others shall repeat."""

    apiVersion: Literal["beear-gate/v1"]
    kind: Literal["Pipeline"]
    name: str
    description: str = ""
    model: str | None = None


def merge_options(pipeline: str | None, given: Mapping[str, Any]) -> Options:
    """Options of a scan: the command line over the pipeline file over the defaults.

    Raises:
        UsageError: no model, or a pipeline file that cannot be used.
    """
    said = {**(_read(_find(pipeline)) if pipeline else {}), **_told(given)}
    if not said.get("model"):
        where = f", and the pipeline {pipeline} names none" if pipeline else ""
        remedy = "Give org/name, org/name@revision or a folder, or --resume RUN_DIR."
        raise UsageError(f"scan needs a model{where}.", remedy)
    return options(said)


def reopen_options(run_dir: Path, given: Mapping[str, Any]) -> Options:
    """Options of an earlier scan, with what the command line now says over them.

    Raises:
        UsageError: there is no run, or another model is named.
    """
    file = run_dir / "request.json"
    try:
        earlier = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise UsageError(f"There is no run in {run_dir}.", "Give --resume the RUN_DIR that a scan printed.") from None
    if given.get("model") and given["model"] != earlier.get("model"):
        raise UsageError(
            f"{run_dir} holds a scan of {earlier.get('model')}, not of {given['model']}.",
            "Leave the model out, or start a new scan.",
        )
    return options({**earlier, **_told(given)})


def options(given: Mapping[str, Any]) -> Options:
    """Checked options; what is None takes its default.

    Raises:
        UsageError: an option that is none, or a value that cannot be used.
    """
    try:
        return Options.model_validate(_told(given))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", "Correct the option.") from None


def _told(given: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in given.items() if value is not None}
    return {name: str(value) if isinstance(value, Path) else value for name, value in said.items()}


def _find(name: str) -> Path:
    folder = HERE / "pipelines" if (HERE / "pipelines").is_dir() else HERE.parent / "pipelines"
    known = {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.yaml"))}
    path = known.get(name, Path(name))
    if not path.is_file():
        raise UsageError(f"There is no pipeline {name!r}.", f"Give a file, or one of {', '.join(known)}.")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = PipelineFile.model_validate(document)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {str(error).splitlines()[0]}.", "Correct the file.") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}" for each in error.errors())
        raise UsageError(f"{path} is no pipeline: {problems}.", "Correct the file.") from None
    policy = Path(path.parent, found.policy)
    values = found.model_dump(exclude={"apiVersion", "kind", "name", "description"})
    return {**values, "policy": str(policy) if policy.suffix in (".yaml", ".yml") else found.policy}
