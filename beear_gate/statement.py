"""What is signed: an in-toto Statement v1 with a SLSA Verification Summary v1 as predicate, as bytes and back.

Specifications: github.com/in-toto/attestation spec/v1/statement.md; slsa.dev/verification_summary/v1. Unknown fields
are ignored, as both demand.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from beear_gate.errors import VerificationFailed
from beear_gate.manifest import quoted

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/verification_summary/v1"

VERIFIER_ID = "pkg:pypi/beear-gate"
"""Who gave the verdict, as the predicate names it; the key says on whose behalf."""
LEVELS = {"PASS": "BEEAR_GATE_PASS", "REMEDIATED": "BEEAR_GATE_REMEDIATED"}
"""Verdict -> verified level. Levels that begin with SLSA_ belong to SLSA."""
EVIDENCE = "evidence.json"
CARD = "README.md"
"""The model card: written after the verdict and edited on hubs, read by people alone. No statement covers it."""

_BESIDE = (CARD, ".gitattributes", ".gitignore", ".git/", ".cache/", ".beear-gate/")
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".pdf")
_PAPERS = (".json", ".html", ".md", ".txt")

_ASK = "Ask whoever published the model for the verdict that `beear-gate attest` wrote."


def wants_cover(name: str) -> bool:
    """Whether a file of a model repository must be among a statement's subjects, because some loader might read it.

    All are, but for the card, the plumbing of git and of the hub's client, pictures, and papers in `.beear-gate/`.

    Args:
        name: path in the repository (POSIX); `name/` for a folder that was not entered.
    """
    if name in _BESIDE or (name.startswith(".beear-gate/") and name.endswith(_PAPERS)):
        return False
    return not name.lower().endswith(_PICTURES)


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class DigestSet(_Part):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Subject(_Part):
    """A file of the model: its path in the folder (POSIX) and its digest."""

    name: str
    digest: DigestSet


class Reference(_Part):
    uri: str
    digest: DigestSet


class Verifier(_Part):
    id: str
    version: dict[str, str] = {}


class Summary(_Part):
    """The Verification Summary.

    Attributes:
        time_verified: when the scan began, not when it was signed: signing an old run again does not make it new.
        resource_uri: the model that was scanned, as a package URL.
        policy: its name, and the digest over all that it says.
        input_attestations: `evidence.json`, which lies beside the signed statement.
        verified_levels: one of LEVELS, or `FAILED`.
    """

    verifier: Verifier
    time_verified: AwareDatetime
    resource_uri: str
    policy: Reference
    input_attestations: tuple[Reference, ...]
    verification_result: Literal["PASSED", "FAILED"]
    verified_levels: tuple[str, ...]


class Statement(_Part):
    type: Annotated[str, Field(alias="_type")] = STATEMENT_TYPE
    subject: tuple[Subject, ...]
    predicate_type: str = PREDICATE_TYPE
    predicate: Summary

    @property
    def files(self) -> dict[str, str]:
        """Path -> sha256 of every file that the verdict is about."""
        return {each.name: each.digest.sha256 for each in self.subject}

    def as_bytes(self) -> bytes:
        return self.model_dump_json(by_alias=True).encode()


class _Head(_Part):
    """Enough of any statement to see what it is."""

    type: Annotated[str, Field(alias="_type")]
    predicate_type: str
    subject: tuple[dict[str, Any], ...] = ()


def read_statement(payload_type: str, payload: bytes) -> Statement:
    """The statement in a signed payload. Check the signature first: this reads what the signer said.

    Raises:
        VerificationFailed: it is no in-toto statement, of another predicate, about no file, or malformed.
    """
    if payload_type != PAYLOAD_TYPE:
        raise VerificationFailed(f"What was signed is {quoted(payload_type)}, no in-toto statement.", _ASK)
    try:
        head = _Head.model_validate_json(payload)
        if head.type != STATEMENT_TYPE:
            raise VerificationFailed(f"The statement is of type {quoted(head.type)}, not in-toto v1.", _ASK)
        if head.predicate_type != PREDICATE_TYPE:
            raise VerificationFailed(
                f"The statement's predicate is {quoted(head.predicate_type)}, no verification summary.", _ASK
            )
        if not head.subject:
            raise VerificationFailed("The statement names no file, so it vouches for nothing.", _ASK)
        statement = Statement.model_validate_json(payload)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the document"
        raise VerificationFailed(f"The signed statement is malformed at {quoted(where)}.", _ASK) from None
    if len(statement.files) != len(statement.subject):
        raise VerificationFailed("The statement names a file twice.", _ASK)
    return statement
