"""Pods of the tests' own, under the restricted profile like all others in the namespace.

See also: `shop` runs in them; `objects` has the resources.
"""

from pathlib import Path
from typing import Any

from tests.e2e.images import OPERATOR

Document = dict[str, Any]
SHOP = "shop"
_SOURCE = Path(__file__).parent / "shop.py"


def shop_rights(namespace: str) -> list[Document]:
    """A ServiceAccount that may create Redemptions and look at them, and nothing else."""
    group = "rbac.authorization.k8s.io"
    rule = {
        "apiGroups": ["billing.openova.io"],
        "resources": ["redemptions"],
        "verbs": ["create", "get", "list", "watch"],
    }
    subject = {"kind": "ServiceAccount", "name": SHOP, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": SHOP}},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": SHOP}, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": SHOP},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": SHOP},
            "subjects": [subject],
        },
    ]


def shops(name: str, namespace: str, code: str, *, pods: int, customers: int) -> list[Document]:
    """A Job of so many shops at once, each with so many customers who all want the same code."""
    container = {
        "name": "shop",
        "image": OPERATOR,
        "command": ["python3", "/shop/shop.py", code, namespace, str(customers)],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "shop", "mountPath": "/shop"}],
    }
    pod = {
        "serviceAccountName": SHOP,
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10002, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "shop", "configMap": {"name": name}}],
    }
    counts = {"completionMode": "Indexed", "completions": pods, "parallelism": pods, "backoffLimit": 0}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"shop.py": _SOURCE.read_text()}},
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {**counts, "template": {"spec": pod}},
        },
    ]
