"""Keys and kubeconfig files for the control plane.

See also: `control_plane`, `access`.
"""

import base64
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# SEC 1 ECPrivateKey: version 1, 32 octets of key, [0] OID of P-256; the public point is optional and Go computes it.
_EC_START = bytes.fromhex("30310201010420")
_EC_END = bytes.fromhex("a00a06082a8648ce3d030107")


def ec_private_key(path: Path) -> None:
    """Write a new P-256 private key as PEM; needs neither openssl nor a library."""
    # Below the order of the curve, which is a little less than 2^256.
    scalar = secrets.randbelow(2**255) + 1
    body = base64.b64encode(_EC_START + scalar.to_bytes(32, "big") + _EC_END).decode()
    path.touch(mode=0o600)
    path.write_text(f"-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n")


def kubeconfig(path: Path, server: str, authority: Path, token: str) -> None:
    """Write a kubeconfig file with everything in it: the server's certificate authority and a bearer token."""
    certificate = base64.b64encode(authority.read_bytes()).decode()
    cluster = {"name": "testbed", "cluster": {"server": server, "certificate-authority-data": certificate}}
    with_token(path, {"clusters": [cluster]}, token, "default")


def with_token(path: Path, source: Mapping[str, Any], token: str, namespace: str) -> None:
    """Write a kubeconfig for the first cluster of the kubeconfig `source`, with a bearer token in place of its user."""
    cluster = source["clusters"][0]
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "testbed",
        "clusters": [cluster],
        "users": [{"name": "testbed", "user": {"token": token}}],
        "contexts": [
            {"name": "testbed", "context": {"cluster": cluster["name"], "user": "testbed", "namespace": namespace}}
        ],
    }
    path.touch(mode=0o600)
    # JSON is YAML.
    path.write_text(json.dumps(content, indent=1))
