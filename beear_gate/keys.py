"""Local keys: made, read from PEM files, and used to sign and open DSSE envelopes (securesystemslib)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from beear_gate.errors import UsageError, VerificationFailed
from beear_gate.statement import PAYLOAD_TYPE

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

PASSPHRASE = "BEEAR_GATE_KEY_PASSPHRASE"
"""The environment variable that holds the passphrase of a private key; a process argument could be seen by others."""


def generate_key(path: Path) -> tuple[Path, str]:
    """Make an Ed25519 key pair: `path` (PKCS#8, mode 0600; encrypted if PASSPHRASE is set) and `path`.pub.

    Returns: the file of the public key, and the key's id.

    Raises:
        UsageError: one of the files exists already, or cannot be written; or the passphrase is empty.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import SSlibKey

    secret = os.environ.get(PASSPHRASE)
    if secret == "":
        raise UsageError(f"{PASSPHRASE} is empty.", "Set it to the passphrase, or unset it for a key without one.")
    public = path.with_name(f"{path.name}.pub")
    for file in (path, public):
        if os.path.lexists(file):
            raise UsageError(f"{file} exists already, and keys are never overwritten.", "Name another file.")
    key = Ed25519PrivateKey.generate()
    encryption = form.BestAvailableEncryption(secret.encode()) if secret else form.NoEncryption()
    private_pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, encryption)
    public_pem = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_new(path, private_pem, 0o600)
        _write_new(public, public_pem, 0o644)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}.", "Name a writable place.") from None
    return public, SSlibKey.from_crypto(key.public_key()).keyid


def load_signer(path: Path) -> CryptoSigner:
    """The private key in a PEM file; where it is encrypted, with the passphrase in PASSPHRASE.

    Raises:
        UsageError: there is none, of no usable kind, or the passphrase is missing or wrong.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    pem = _read(path)
    secret = os.environ.get(PASSPHRASE, "").encode() if b"ENCRYPTED" in pem else None
    if secret == b"":
        raise UsageError(f"{path} is encrypted.", f"Set {PASSPHRASE} to its passphrase.")
    try:
        return CryptoSigner(load_pem_private_key(pem, secret))
    except (ValueError, TypeError, UnsupportedAlgorithm):  # their texts are about ASN.1
        if secret:
            raise UsageError(f"{path} does not open with the passphrase in {PASSPHRASE}.", "Correct it.") from None
        raise UsageError(
            f"{path} is no private key that can sign.", "Name a PEM file, such as `beear-gate keygen` makes."
        ) from None


def load_public_key(path: Path) -> SSlibKey:
    """The public key in a PEM file.

    Raises:
        UsageError: there is none, or it is of no usable kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        return SSlibKey.from_crypto(load_pem_public_key(_read(path)))
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(
            f"{path} is no public key.", "Name the signer's PEM file, such as KEY.pub of `beear-gate keygen`."
        ) from None


def sign(payload: bytes, signer: CryptoSigner) -> str:
    """A DSSE envelope around an in-toto statement, as JSON."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return json.dumps(envelope.to_dict(), indent=2) + "\n"


def open_envelope(document: bytes, key: SSlibKey) -> tuple[str, bytes]:
    """Type and bytes of a DSSE envelope's payload, once its signature by this key has been checked.

    Raises:
        VerificationFailed: it is no envelope, carries no signature, or none by this key that fits the payload.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import FormatError, VerificationError

    try:
        envelope = Envelope.from_dict(json.loads(document))
        envelope.pae()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError):
        raise VerificationFailed(
            "The verdict file is broken: it is no DSSE envelope.", "Fetch it again from whoever published the model."
        ) from None
    if not envelope.signatures:
        raise VerificationFailed("The verdict carries no signature.", "Do not trust it; ask for the signed one.")
    if key.keyid not in envelope.signatures:
        raise VerificationFailed(
            f"The verdict is not signed by this key ({key.keyid[:16]}…).",
            "Check that --key is the public key of whoever should have signed; else do not trust the verdict.",
        )
    try:
        envelope.verify([key], threshold=1)
    except VerificationError:
        raise VerificationFailed(
            "The verdict was changed after it was signed, or its signature is forged.",
            "Do not trust it; fetch it again from whoever published the model.",
        ) from None
    return envelope.payload_type, envelope.payload


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"The key {path} cannot be read: {error.strerror}.", "Check the path.") from None


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet; no moment passes in which others could read a private key."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
