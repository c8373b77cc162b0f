"""NetworkPolicies as the cluster enforces them: a pod is given one role after the other, and tries every server.

What a role may reach shows that the same attempt can succeed; what it may not is refused by nothing but a policy.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ml_assets_tests.k8s.image import IMAGE
from ml_assets_tests.k8s.platform import NAMESPACE, Platform
from ml_assets_tests.k8s.platform import until as wait_until

pytestmark = pytest.mark.k8s

ELSEWHERE = "ml-assets-test-elsewhere"  # a namespace of somebody else, without policies
ROLE = "ml-assets/network"
SETTLE_SECONDS = 30  # what a CNI may take until its rules are those of new labels or policies
STAGE = {"postgres", "s3", "mlflow"}
MAY_REACH = {
    "": set[str](),
    "code-location": STAGE,
    "daemon": {"postgres", "s3", "code-location", "api-server"},
    "desk": STAGE | {"kafka"},
    "lander": {"s3", "kafka"},
    "mcp": STAGE,
    "migrate": {"postgres"},
    "mlflow": {"postgres", "s3"},
    "run": STAGE,
    "scoring": STAGE | {"kafka"},
    "simulate": {"s3", "kafka"},
    "webserver": {"postgres", "s3", "code-location"},
    "webserver-writable": {"postgres", "s3", "code-location", "api-server"},
}
_TRY = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def reached(server):
    address = socket.getaddrinfo(*server, family=socket.AF_INET, type=socket.SOCK_STREAM)[0][4]
    try:
        socket.create_connection(address, timeout=3).close()
    except OSError:
        return False
    return True
servers = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(servers)) as threads:
    print(json.dumps([name for name, open in zip(servers, threads.map(reached, servers.values())) if open]))
"""


def pod(name: str, namespace: str, *arguments: str) -> dict[str, Any]:
    """A pod of no role that the restricted profile and the quota accept."""
    container = {
        "name": "python", "image": IMAGE, "args": ["python", *arguments], "workingDir": "/tmp",
        "resources": {side: {"cpu": "100m", "memory": "128Mi"} for side in ("requests", "limits")},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "automountServiceAccountToken": False, "enableServiceLinks": False, "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1001, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def servers(platform: Platform) -> Iterator[dict[str, tuple[str, int]]]:
    """Where each server is, by name, so that a name has to be answered too; and pods that try to reach them."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ELSEWHERE}}
    sleep = ("-c", "import time; time.sleep(1e6)")
    try:
        for made in (namespace, pod("try", NAMESPACE, *sleep), pod("try", ELSEWHERE, "-m", "http.server", "8080")):
            where = made["metadata"].get("namespace", NAMESPACE)
            platform.kubectl("apply", "-n", where, "-f", "-", stdin=json.dumps(made))
        for each in (NAMESPACE, ELSEWHERE):
            platform.kubectl("wait", "-n", each, "pod/try", "--for=condition=Ready", "--timeout=120s")
        ours = {
            "postgres": ("postgres", 5432), "s3": ("s3", 9000), "kafka": ("kafka", 9092),
            "mlflow": ("ml-assets-mlflow", 5000), "code-location": ("ml-assets-code-location", 4000),
            "webserver": ("ml-assets-webserver", 3000), "webserver-writable": ("ml-assets-webserver-writable", 3000),
        }  # fmt: skip
        yield {
            **{name: (f"{service}.{NAMESPACE}.svc.cluster.local", port) for name, (service, port) in ours.items()},
            "api-server": ("kubernetes.default.svc.cluster.local", 443),
            "lander": (address(platform, NAMESPACE, "ml-assets-lander-0"), 9400),
            "scoring": (address(platform, NAMESPACE, a_pod_of(platform, "scoring")), 8000),  # ready or not
            "mcp": (address(platform, NAMESPACE, a_pod_of(platform, "mcp")), 8100),
            "elsewhere": (address(platform, ELSEWHERE, "try"), 8080),
        }
    finally:
        platform.kubectl("delete", "namespace", ELSEWHERE, "--wait=false")
        platform.kubectl("delete", "pod", "try", "--wait=false")


def a_pod_of(platform: Platform, name: str) -> str:
    """A pod of a workload that is running."""
    label = f"app.kubernetes.io/name=ml-assets-{name}"
    found = platform.get("pods", "-l", label, "--field-selector=status.phase=Running")["items"]
    return str(next(p["metadata"]["name"] for p in found if "deletionTimestamp" not in p["metadata"]))


def address(platform: Platform, namespace: str, name: str) -> str:
    return str(platform.get("pod", "-n", namespace, name)["status"]["podIP"])


def require_reached(
    platform: Platform, servers: dict[str, tuple[str, int]], expected: set[str], namespace: str = NAMESPACE
) -> None:
    """Fail unless the pod of a namespace reaches just these, as soon as the cluster's rules have settled."""
    command = ["exec", "-n", namespace, "try", "--", "python", "-c", _TRY, json.dumps(servers)]
    reached: set[str] = set()

    def settled() -> bool:
        reached.clear()
        reached.update(json.loads(platform.kubectl(*command)))
        return reached == expected

    try:
        wait_until("the rules to settle", settled, SETTLE_SECONDS)
    except TimeoutError:
        assert reached == expected


@pytest.mark.parametrize("role", MAY_REACH)
def test_a_role_reaches_what_it_needs_and_nothing_else(
    platform: Platform, servers: dict[str, tuple[str, int]], role: str
) -> None:
    platform.kubectl("label", "pod", "try", f"{ROLE}={role}" if role else f"{ROLE}-", "--overwrite")
    require_reached(platform, servers, MAY_REACH[role])


def test_nobody_reaches_in_from_another_namespace(platform: Platform, servers: dict[str, tuple[str, int]]) -> None:
    """Whatever labels a pod there gives itself. Who reads metrics or asks for scores, an administrator says."""
    theirs = {"api-server", "elsewhere"}  # no policy is about what they do among themselves
    for role in ("run", "daemon", "lander"):
        platform.kubectl("label", "pod", "-n", ELSEWHERE, "try", f"{ROLE}={role}", "--overwrite")
        require_reached(platform, servers, theirs, ELSEWHERE)
    platform.kubectl("label", "namespace", ELSEWHERE, "ml-assets/monitoring=true")
    require_reached(platform, servers, theirs | {"lander", "scoring"}, ELSEWHERE)
    platform.kubectl("label", "namespace", ELSEWHERE, "ml-assets/monitoring-", "ml-assets/scoring-client=true")
    require_reached(platform, servers, theirs | {"scoring"}, ELSEWHERE)
    platform.kubectl("label", "namespace", ELSEWHERE, "ml-assets/scoring-client-", "ml-assets/mcp-client=true")
    require_reached(platform, servers, theirs | {"mcp"}, ELSEWHERE)
    platform.kubectl("label", "namespace", ELSEWHERE, "ml-assets/mcp-client-")
    require_reached(platform, servers, theirs, ELSEWHERE)


def test_nothing_leaves_the_namespace_unless_a_policy_says_so(
    platform: Platform, servers: dict[str, tuple[str, int]]
) -> None:
    platform.kubectl("label", "pod", "try", f"{ROLE}=run", "--overwrite")
    require_reached(platform, servers, MAY_REACH["run"])
    there = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ELSEWHERE}}}
    policy = {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "try"},
        "spec": {
            "podSelector": {"matchLabels": {ROLE: "run"}}, "policyTypes": ["Egress"],
            "egress": [{"to": [there], "ports": [{"port": 8080}]}],
        },
    }  # fmt: skip
    platform.kubectl("apply", "-f", "-", stdin=json.dumps(policy))
    try:
        require_reached(platform, servers, MAY_REACH["run"] | {"elsewhere"})
    finally:
        platform.kubectl("delete", "networkpolicy", "try")
    require_reached(platform, servers, MAY_REACH["run"])
