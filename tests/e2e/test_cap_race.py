"""Many pods want the same code at once: the cap holds, and everybody gets an answer."""

import json
from collections import Counter

from tests.e2e.objects import voucher
from tests.e2e.release import Release
from tests.e2e.workloads import shops

PODS, CUSTOMERS, CAP = 6, 10, 20


def test_cap_is_exact_with_many_pods(billing: Release) -> None:
    kind, namespace = billing.kind, billing.namespace
    kind.apply(voucher("race", "RACE-2090", maxRedemptions=CAP), namespace=namespace)
    kind.wait("voucher/race", "condition=Ready", namespace)
    kind.apply(*shops("race", namespace, "RACE-2090", pods=PODS, customers=CUSTOMERS), namespace=namespace)
    kind.wait("job/race", "condition=Complete", namespace, timeout=120)

    answers: Counter[str] = Counter()
    for line in kind.kubectl("logs", f"--namespace={namespace}", "--selector=job-name=race", "--tail=-1").splitlines():
        answers.update(json.loads(line))
    assert answers == {"Redeemed": CAP, "Rejected": PODS * CUSTOMERS - CAP}
    kind.wait("voucher/race", f"jsonpath={{.status.redeemed}}={CAP}/{CAP}", namespace)
    assert kind.get("voucher", "race", namespace)["status"]["state"] == "Exhausted"
    assert billing.verify() == "the ledger is consistent"
