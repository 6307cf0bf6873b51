"""The scan in MLflow: one parent run with everything a reviewer opens, and one nested run for each stage.

Only figures, texts and pages are logged, never weights: MLflow's model flavours load untrusted code, and its proxy
times out on large files. All of it goes through an `MlflowClient` of its own, so that the tracking URI and the active
run of the calling process stay as they are.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import shlex
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from beear_gate import __version__
from beear_gate.errors import RecordingFailed
from beear_gate.records import AnchorSets, Example, GateReport
from beear_gate.redact import without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

_ENVIRONMENT = {
    # MLflow's own defaults retry for many minutes; a dead server should not hold a finished scan.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # MLflow prints links on stdout, where `--format json` promises exactly one document.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def record(report: GateReport, run_dir: Path, tracking_uri: str | None, experiment: str) -> str:
    """Log a finished scan and return the id of its parent run.

    Args:
        run_dir: the scan's directory; `policy.yaml` and `anchors.json` are logged from it where they exist.
        tracking_uri: an MLflow server or database; without one MLFLOW_TRACKING_URI, else `mlflow.db` in the current
            directory.
        experiment: name of the MLflow experiment; created where it is missing.

    Raises:
        RecordingFailed: MLflow is not there or refused; what it had taken so far is marked as FAILED.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read once, when mlflow is imported
    with _settings():
        try:
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError as error:
            raise _failed(error, uri, run_dir) from error
        try:
            with _quiet():
                return _record(report, run_dir, uri, experiment)
        # ImportError: a database driver that the URI needs and that is not installed.
        except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
            raise _failed(error, uri, run_dir) from error


def _failed(error: Exception, uri: str, run_dir: Path) -> RecordingFailed:
    from beear_gate.report.text import one_line

    shown = without_credentials(uri)
    lines = _reason(error).replace(uri, shown).strip().splitlines() or [type(error).__name__]
    return RecordingFailed(
        f"MLflow at {shown} did not take the run: {one_line(lines[0], 300).rstrip('.')}.",
        f"{run_dir} holds everything; `beear-gate scan --resume {shlex.quote(str(run_dir))} "
        f"--tracking-uri {shlex.quote(shown)}` logs it later.",
    )


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and type(cause).__module__.startswith("requests"):
            return f"the server gave no answer ({type(cause).__name__})"  # its own text is a page of nested reprs
        cause = cause.__cause__ or cause.__context__
    return str(error)


@contextmanager
def _settings() -> Iterator[None]:
    """Impatient, unless the user said otherwise; nothing of it outlives the call."""
    added = {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """No word about database migrations; entered after the import of mlflow, which sets these levels itself."""
    levels = {name: logging.getLogger(name).level for name in ("mlflow", "alembic")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _record(report: GateReport, run_dir: Path, uri: str, experiment: str) -> str:
    from mlflow import MlflowClient

    from beear_gate.report import files, runs

    client = MlflowClient(tracking_uri=uri)
    experiment_id = _experiment(client, uri, experiment)
    began, ended = _times(report)
    with _run(client, experiment_id, runs.name(report), _tags(report), began=began, ended=ended) as parent:
        _log_values(client, parent, runs.metrics(report.measurements), runs.params(report))
        _log_anchors(client, parent, run_dir / "anchors.json")
        for stage in runs.stages(report):
            nested = {"mlflow.parentRunId": parent, **stage.tags}
            with _run(client, experiment_id, stage.name, nested) as child:
                _log_values(client, child, stage.metrics, stage.params)
        with tempfile.TemporaryDirectory(prefix="beear-gate-") as folder:
            files.write(report, Path(folder))
            if (run_dir / "policy.yaml").is_file():
                shutil.copyfile(run_dir / "policy.yaml", Path(folder) / "policy.yaml")
            client.log_artifacts(parent, folder)
    return parent


def _experiment(client: MlflowClient, uri: str, name: str) -> str:
    from beear_gate.report import runs

    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    location = None
    if uri.startswith("sqlite:///"):
        # MLflow would put the files below whatever directory the process happens to be in.
        beside = Path(uri.removeprefix("sqlite:///")).resolve().parent
        location = str(beside / "mlruns" / runs.sanitised(name))
    return client.create_experiment(name, artifact_location=location)


@contextmanager
def _run(
    client: MlflowClient,
    experiment_id: str,
    name: str,
    tags: dict[str, str],
    *,
    began: int | None = None,
    ended: int | None = None,
) -> Iterator[str]:
    """A run that is FINISHED after the block, or FAILED (KILLED by Ctrl-C) where the block did not end well."""
    from mlflow.exceptions import MlflowException

    run_id: str = client.create_run(experiment_id, began, tags | _whose(), name).info.run_id
    try:
        yield run_id
    except BaseException as error:
        with suppress(MlflowException, OSError):  # the server may be what failed
            client.set_terminated(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED", ended)


def _whose() -> dict[str, str]:
    tags = {"mlflow.source.name": "beear-gate", "mlflow.source.type": "LOCAL"}
    with suppress(OSError, KeyError):  # containers may run as a user without a name
        tags["mlflow.user"] = getpass.getuser()
    return tags


def _times(report: GateReport) -> tuple[int | None, int | None]:
    """Start and end of the scan in milliseconds, so that MLflow shows when it ran and not when it was logged."""
    try:
        began = datetime.fromisoformat(report.started).timestamp()
    except ValueError:
        return None, None
    return int(began * 1000), int((began + report.seconds) * 1000)


def _tags(report: GateReport) -> dict[str, str]:
    from beear_gate.report import files, render, runs

    shown = {
        "beear_gate.version": __version__,
        "mlflow.note.content": render.markdown(report),
        "mlflow.loggedArtifacts": json.dumps([{"path": path, "type": "table"} for path in files.TABLES]),
    }
    return runs.tags(report) | shown


def _log_values(
    client: MlflowClient, run_id: str, values: Mapping[str, Iterable[tuple[int, float]]], params: Mapping[str, object]
) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    found = [(name, step, float(value)) for name, steps in values.items() for step, value in steps]
    metrics = [Metric(name, value, now, step) for name, step, value in found if isfinite(value)]
    client.log_batch(run_id, metrics=metrics, params=[Param(name, str(value)) for name, value in params.items()])


def _log_anchors(client: MlflowClient, run_id: str, path: Path) -> None:
    """The anchoring sets as dataset inputs: MLflow keeps their name, digest and size, not their content."""
    if not path.is_file():
        return
    from pydantic import TypeAdapter, ValidationError

    from beear_gate.report import runs

    try:
        anchors = TypeAdapter(AnchorSets).validate_python(json.loads(path.read_bytes())["result"])
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        remedy = "Move it away to log the run without them."
        raise RecordingFailed(f"{path} does not hold anchoring sets.", remedy) from error
    inputs = []
    for behavior in anchors.behaviors:
        name = runs.sanitised(behavior.behavior)
        inputs.append(_dataset(f"{name}.safe", "anchor", behavior.safe, path))
        inputs.append(_dataset(f"{name}.unwanted", "anchor", behavior.unwanted, path))
        inputs.append(_dataset(f"{name}.select", "select", behavior.select, path))
    inputs.append(_dataset("useful", "anchor", anchors.useful, path))
    inputs.append(_dataset("useful.select", "select", anchors.useful_select, path))
    client.log_inputs(run_id, [one for one in inputs if one is not None])


def _dataset(name: str, context: str, examples: tuple[Example, ...], path: Path) -> DatasetInput | None:
    if not examples:
        return None
    import pandas  # type: ignore[import-untyped]
    from mlflow.data.pandas_dataset import from_pandas
    from mlflow.entities import Dataset, DatasetInput, InputTag

    frame = pandas.DataFrame({"prompt": [e.prompt for e in examples], "answer": [e.answer for e in examples]})
    with warnings.catch_warnings():  # MLflow registers its source for local files twice, and warns that it has a choice
        warnings.filterwarnings("ignore", "The specified dataset source can be interpreted", UserWarning)
        logged = from_pandas(frame, source=str(path), name=name)
    return DatasetInput(Dataset(**logged.to_dict()), [InputTag("mlflow.data.context", context)])
