"""Signing without a key of one's own: sigstore binds a signature to the identity of a CI job (extra `sign`).

Without a trust configuration, sigstore's public services are used, and asked over the network for their newest keys.
With one (the file that `sigstore --trust-config` takes), a private instance, or a public one without the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from beear_gate.errors import IncompleteError, UsageError, VerificationFailed

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig


def sign_keyless(payload: bytes, trust_config: Path | None = None) -> str:
    """A sigstore bundle (JSON) around an in-toto statement, signed as the CI job that this runs in.

    Raises:
        UsageError: sigstore is not installed, or the trust configuration cannot be used.
        IncompleteError: there is no identity here, or a service of sigstore could not be reached or refused.
    """
    trust = _trust(trust_config)
    from sigstore.dsse import Statement
    from sigstore.errors import Error
    from sigstore.oidc import IdentityToken, detect_credential
    from sigstore.sign import SigningContext

    try:
        token = detect_credential()
    except Error:
        token = None
    if token is None:
        raise IncompleteError(
            "There is no identity to sign with: this is no CI job that may ask for one.",
            "In GitHub Actions give the job the permission `id-token: write`; elsewhere sign with --key.",
        )
    try:
        with SigningContext.from_trust_config(trust).signer(IdentityToken(token)) as signer:
            return signer.sign_dsse(Statement(payload)).to_json() + "\n"
    except Exception as error:  # those of sigstore have no common base, and their texts may hold parts of the token
        raise IncompleteError(
            f"sigstore could not sign the verdict ({type(error).__name__}).",
            "Check the network and that the job's identity is accepted, then attest again, or sign with --key.",
        ) from None


def open_bundle(document: bytes, identity: str, issuer: str, trust_config: Path | None = None) -> tuple[str, bytes]:
    """Type and bytes of what a sigstore bundle holds, once its signature by this identity has been checked.

    Raises:
        UsageError: sigstore is not installed, or the trust configuration cannot be used.
        IncompleteError: sigstore's keys could not be fetched.
        VerificationFailed: it is no bundle, or not signed by this identity.
    """
    trust = _trust(trust_config)
    from sigstore.models import Bundle
    from sigstore.verify import Verifier
    from sigstore.verify.policy import Identity

    try:
        bundle = Bundle.from_json(document)
    except Exception:  # the file is hostile; whatever its reading raises, it is no bundle
        raise VerificationFailed(
            "The verdict file is broken: it is no sigstore bundle.", "Fetch it again from whoever published the model."
        ) from None
    try:
        verifier = Verifier(trusted_root=trust.trusted_root)
        return verifier.verify_dsse(bundle, Identity(identity=identity, issuer=issuer))
    except Exception:  # likewise: its certificate is read before anybody has vouched for it
        raise VerificationFailed(
            f"The verdict is not signed by {identity} (issuer {issuer}), or was changed after it was signed.",
            "Check --identity and --issuer; else do not trust the verdict.",
        ) from None


def _trust(config: Path | None) -> ClientTrustConfig:
    """The services and keys to trust."""
    try:
        from sigstore.errors import Error
        from sigstore.models import ClientTrustConfig
    except ImportError:
        raise UsageError(
            "Keyless signatures need sigstore, which is not installed.", "Run `pip install 'beear-gate[sign]'`."
        ) from None
    try:
        return ClientTrustConfig.from_json(config.read_text("utf-8")) if config else ClientTrustConfig.production()
    except (OSError, ValueError) as error:
        if config is None:
            raise _no_keys(error) from None
        raise UsageError(
            f"{config} is no trust configuration of sigstore.", "Name a file that `sigstore --trust-config` takes."
        ) from None
    except Error as error:
        raise _no_keys(error) from None


def _no_keys(error: Exception) -> IncompleteError:
    return IncompleteError(
        f"The keys of sigstore's public services could not be fetched ({type(error).__name__}).",
        "Check the network, or name a trust configuration with --trust-config.",
    )
