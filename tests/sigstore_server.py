"""A sigstore of the tests' own on 127.0.0.1: an identity provider, a certificate authority with its log (Fulcio) and a
transparency log of one entry (Rekor v1), enough for the real client to sign, and a trust configuration to verify by."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import struct
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ISSUER = "https://token.actions.githubusercontent.com"
IDENTITY = "https://github.com/org/repo/.github/workflows/gate.yml@refs/heads/main"
_SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_OIDC_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Key:
    """A P-256 key, and its id: the sha256 of its public half, as both logs name their keys."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.der = self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.id = hashlib.sha256(self.der).digest()

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(data, ec.ECDSA(hashes.SHA256()))


class Sigstore:
    """Keys and answers of the services; `url` once they run."""

    def __init__(self) -> None:
        self.ca, self.ct, self.rekor, self.url = Key(), Key(), Key(), ""
        self.start = datetime.now(UTC) - timedelta(hours=1)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a root for tests")])
        public = self.ca.private.public_key()
        self.root = (
            self._builder(name, public, timedelta(days=1))
            .subject_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self.ca.private, hashes.SHA256())
        )

    def _builder(self, issuer: x509.Name, public: Any, life: timedelta) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(self.start).not_valid_after(datetime.now(UTC) + life)

    def token(self) -> dict[str, str]:
        now = int(time.time())
        claims = {"aud": "sigstore", "iss": ISSUER, "sub": IDENTITY, "iat": now, "nbf": now, "exp": now + 600}
        return {"value": jwt.encode(claims, "a key of the identity provider, long", algorithm="HS256")}

    def certificate(self, body: dict[str, Any]) -> dict[str, Any]:
        """A certificate for the identity, with the promise (SCT) of the certificate log inside (RFC 6962)."""
        request = x509.load_pem_x509_csr(base64.b64decode(body["certificateSigningRequest"]))
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.private.public_key())
        builder = (
            self._builder(self.root.subject, request.public_key(), timedelta(minutes=10))
            .subject_name(x509.Name([]))
            .add_extension(_usage(sign=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(authority, critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(IDENTITY)]), critical=True)
            .add_extension(x509.UnrecognizedExtension(_OIDC_ISSUER, ISSUER.encode()), critical=False)
        )
        tbs = builder.sign(self.ca.private, hashes.SHA256()).tbs_certificate_bytes
        stamp = int(time.time() * 1000)
        entry = self.ca.id + len(tbs).to_bytes(3, "big") + tbs + b"\0\0"
        signature = self.ct.sign(struct.pack("!BBQH", 0, 0, stamp, 1) + entry)
        sct = b"\0" + self.ct.id + struct.pack("!QHBBH", stamp, 0, 4, 3, len(signature)) + signature
        listed = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        promise = x509.UnrecognizedExtension(_SCT_LIST, bytes([4, len(listed)]) + listed)
        leaf = builder.add_extension(promise, critical=False).sign(self.ca.private, hashes.SHA256())
        chain = [each.public_bytes(Encoding.PEM).decode() for each in (leaf, self.root)]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    def entry(self, body: dict[str, Any]) -> dict[str, Any]:
        """The log's only entry, its promise and the proof that the log holds it."""
        proposed = body["spec"]["proposedContent"]
        envelope = json.loads(proposed["envelope"])
        payload = hashlib.sha256(base64.b64decode(envelope["payload"])).hexdigest()
        verified = [{"signature": each["sig"], "verifier": proposed["verifiers"][0]} for each in envelope["signatures"]]
        spec = {
            "envelopeHash": _sha256(hashlib.sha256(proposed["envelope"].encode()).hexdigest()),
            "payloadHash": _sha256(payload),
            "signatures": verified,
        }
        content = json.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}).encode()
        said = {
            "body": b64(content),
            "integratedTime": int(time.time()),
            "logID": self.rekor.id.hex(),
            "logIndex": 0,
        }
        root = hashlib.sha256(b"\0" + content).digest()
        note = f"rekor.test\n1\n{b64(root)}\n"
        signed = b64(self.rekor.id[:4] + self.rekor.sign(note.encode()))
        proof = {
            "checkpoint": f"{note}\n\u2014 rekor.test {signed}\n",
            "hashes": [],
            "logIndex": 0,
            "rootHash": root.hex(),
            "treeSize": 1,
        }
        promise = b64(self.rekor.sign(json.dumps(said, separators=(",", ":"), sort_keys=True).encode()))
        return {"0" * 64: said | {"verification": {"inclusionProof": proof, "signedEntryTimestamp": promise}}}

    def trust_config(self) -> str:
        """What `--trust-config` takes."""
        valid = {"start": self.start.isoformat().replace("+00:00", "Z")}

        def log(key: Key) -> dict[str, Any]:
            public = {"rawBytes": b64(key.der), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid}
            return {
                "baseUrl": self.url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": public,
                "logId": {"keyId": b64(key.id)},
            }

        service = [{"url": self.url, "majorApiVersion": 1, "validFor": valid, "operator": "test"}]
        authority = {
            "subject": {"organization": "test", "commonName": "test"},
            "uri": self.url,
            "certChain": {"certificates": [{"rawBytes": b64(self.root.public_bytes(Encoding.DER))}]},
            "validFor": valid,
        }
        config = {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self.rekor)],
                "certificateAuthorities": [authority],
                "ctlogs": [log(self.ct)],
                "timestampAuthorities": [],
            },
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": service,
                "oidcUrls": service,
                "rekorTlogUrls": service,
                "tsaUrls": [],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaConfig": {"selector": "ANY"},
            },
        }
        return json.dumps(config)


def _usage(sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(sign, False, False, False, False, not sign, not sign, False, False)


def _sha256(value: str) -> dict[str, str]:
    return {"algorithm": "sha256", "value": value}


@contextlib.contextmanager
def running_sigstore() -> Iterator[Sigstore]:
    """The services on a free port, stopped at the end."""
    services = Sigstore()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200, services.token())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.endswith("signingCert"):
                self.answer(200, services.certificate(body))
            else:
                self.answer(201, services.entry(body))

        def answer(self, status: int, document: dict[str, Any]) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        services.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield services
        server.shutdown()
