"""`keygen`, `attest` and `verify`: verdicts that others can check without trusting this machine."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from beear_gate.cli_options import Format, Quiet, Revision
from beear_gate.errors import UsageError
from beear_gate.progress import progress

if TYPE_CHECKING:
    from beear_gate.verify import Verified

BY_KEY, BY_IDENTITY = "verdict.dsse.json", "verdict.sigstore.json"
"""Names of signed verdicts, in `RUN_DIR/attestation/` and in `.beear-gate/` of a model."""
GITHUB_ACTIONS = "https://token.actions.githubusercontent.com"
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")

TrustConfig = Annotated[
    Path | None, typer.Option(help="Services and keys of sigstore to trust. [default: its public ones]")
]


def keygen(
    output: Annotated[Path, typer.Option(help="File for the private key; the public one gets .pub after its name.")],
) -> None:
    """Make a key pair for signing verdicts; BEEAR_GATE_KEY_PASSPHRASE, if set, encrypts the private key."""
    from beear_gate.keys import generate_key

    public, key_id = generate_key(output)
    typer.echo(f"{output}: private key; keep it where no model is loaded\n{public}: public key {key_id}")


def attest(
    run_dir: Annotated[Path, typer.Argument(help="RUN_DIR of a finished scan.")],
    key: Annotated[Path | None, typer.Option(help="Private key (PEM) to sign with.")] = None,
    keyless: Annotated[bool, typer.Option("--keyless", help="Sign as the CI job that this is, with sigstore.")] = False,
    trust_config: TrustConfig = None,
    quiet: Quiet = False,
) -> None:
    """Sign a run's verdict, once the judged model has been hashed again; exits 1 where the verdict is BLOCKED."""
    from beear_gate.attest import attest as write
    from beear_gate.keyless import sign_keyless
    from beear_gate.keys import load_signer, sign
    from beear_gate.records import Verdict
    from beear_gate.report.text import visible

    if key and not keyless:
        name, signed = BY_KEY, partial(sign, signer=load_signer(key))
    elif keyless and not key:
        name, signed = BY_IDENTITY, partial(sign_keyless, trust_config=trust_config)
    else:
        raise UsageError("attest signs with a key, or keyless.", "Give either --key FILE or --keyless.")
    with progress(quiet) as tick:
        done = write(run_dir, name, signed, tick)
    for each in done.uncovered:
        typer.echo(f"not covered, and `verify` rejects a model that holds it: {visible(each)}", err=True)
    typer.echo(f"{done.file}: {done.verdict}, {done.files} files")
    raise typer.Exit(1 if done.verdict is Verdict.BLOCKED else 0)


def verify(
    model: Annotated[str, typer.Argument(help="A folder, org/name, or org/name@revision, which is pulled.")],
    key: Annotated[Path | None, typer.Option(help="The signer's public key (PEM).")] = None,
    identity: Annotated[str | None, typer.Option(help="The signer's identity, such as the URL of a workflow.")] = None,
    issuer: Annotated[str, typer.Option(help="Who vouches for the identity.")] = GITHUB_ACTIONS,
    verdict: Annotated[
        Path | None, typer.Option(help="Signed verdict, evidence.json beside it. [default: in MODEL/.beear-gate]")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Policy that must have been met: name, file or digest.")] = None,
    source: Annotated[str | None, typer.Option(help="Model that must have been scanned: org/name[@commit].")] = None,
    max_age: Annotated[int | None, typer.Option(min=0, max=36500, help="Days that the verdict may be old.")] = None,
    revision: Revision = None,
    trust_config: TrustConfig = None,
    format: Format = "text",
    quiet: Quiet = False,
) -> None:
    """Check every byte of a model against its signed verdict; exits 4 where anything differs. Nothing is loaded."""
    from beear_gate.keyless import open_bundle
    from beear_gate.keys import load_public_key, open_envelope
    from beear_gate.verify import Expected
    from beear_gate.verify import verify as check

    if key and not identity:
        name, opened = BY_KEY, partial(open_envelope, key=load_public_key(key))
    elif identity and not key:
        name = BY_IDENTITY
        opened = partial(open_bundle, identity=identity, issuer=issuer, trust_config=trust_config)
    else:
        raise UsageError("verify needs to know who must have signed.", "Give either --key FILE or --identity TEXT.")
    days = None if max_age is None else timedelta(max_age)
    expected = Expected(_policy_digest(policy) if policy else None, source, days)
    with progress(quiet) as tick:
        found = check(model, verdict, name, opened, expected, tick, revision)
    typer.echo(_as_json(found) if format == "json" else _words(found))


def _policy_digest(policy: str) -> str:
    given = _DIGEST.fullmatch(policy)
    if given:
        return given[1]
    from beear_gate.cli_policy import load

    return load(policy).digest


def _words(found: Verified) -> str:
    from beear_gate.report.text import visible

    summary = found.statement.predicate
    lines = (
        f"Verified: the {len(found.statement.files)} files of {found.path} are the ones judged {found.verdict}.",
        f"scanned: {summary.resource_uri}, on {summary.time_verified:%Y-%m-%d} ({found.age.days} days ago)",
        f"policy: {summary.policy.uri}, sha256 {summary.policy.digest.sha256}",
    )
    return "\n".join(visible(line) for line in lines)


def _as_json(found: Verified) -> str:
    summary = found.statement.predicate
    document = {
        "verified": True,
        "path": str(found.path),
        "verdict": found.verdict,
        "scanned": summary.resource_uri,
        "time": summary.time_verified.isoformat(),
        "policy": {"uri": summary.policy.uri, "digest": summary.policy.digest.sha256},
        "files": found.statement.files,
    }
    return json.dumps(document)
