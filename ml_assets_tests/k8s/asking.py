"""A client of the scoring service, in a namespace of its own: it keeps its own record of what it asked and was told."""

import base64
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.k8s.platform import NAMESPACE, Platform
from ml_assets_tests.k8s.secrets import AUDIENCE, ISSUER
from ml_assets_tests.k8s.test_network import pod

WHERE = "ml-assets-test-client"
THREADS = 4
FIRST_ANSWER_SECONDS = 120
# Four clients ask, each on a connection that it keeps, until a file says stop; then it tells what came of it. Another
# file says that one of them has been answered.
_ASK = """
import collections, http.client, json, os, ssl, sys, threading, time
given = json.loads(sys.argv[1])
context = ssl.create_default_context(cadata=given["ca"])
said = {"asked": 0, "answered": 0, "others": [], "failed": [], "scores": {}, "versions": [], "slowest": 0.0}
lock, body = threading.Lock(), json.dumps({"entity_ids": given["entities"]})
def ask():
    connection = http.client.HTTPSConnection(given["host"], 8000, context=context, timeout=30)
    while not os.path.exists("/tmp/stop"):
        with lock:
            said["asked"] += 1
        begun = time.monotonic()
        try:
            connection.request("POST", given["path"], body, {"Authorization": "Bearer " + given["token"]})
            response = connection.getresponse()
            status, read = response.status, response.read()
        except OSError as error:
            connection.close()
            with lock:
                said["failed"].append(repr(error))
            continue
        open("/tmp/answered", "w").close()
        with lock:
            said["slowest"] = max(said["slowest"], time.monotonic() - begun)
            if status != 200:
                said["others"].append([status, read.decode()[:300]])
            else:
                said["answered"] += 1
                answer = json.loads(read)
                said["versions"] = sorted({*said["versions"], answer["model"]["version"]})
                for one in answer["scores"]:
                    known = said["scores"].setdefault(one["entity_id"], [])
                    if one["probability"] not in known:
                        known.append(one["probability"])
        time.sleep(0.05)
threads = [threading.Thread(target=ask) for _ in range(given["threads"])]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(said))
"""
_WAIT = f"""
import os, sys, time
ends = time.monotonic() + {FIRST_ANSWER_SECONDS}
while not os.path.exists("/tmp/answered"):
    if time.monotonic() > ends:
        sys.exit("the service has given no answer in {FIRST_ANSWER_SECONDS} seconds")
    time.sleep(0.05)
"""

# One call of a tool without arguments; the server keeps no session, so none is begun.
_CALL = """
import http.client, json, ssl, sys
given = json.loads(sys.argv[1])
connection = http.client.HTTPSConnection(
    given["host"], 8100, context=ssl.create_default_context(cadata=given["ca"]), timeout=60
)
body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": given["tool"], "arguments": {}}}
headers = {
    "Authorization": "Bearer " + given["token"], "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
}
connection.request("POST", "/mcp", json.dumps(body), headers)
response = connection.getresponse()
print(json.dumps({"status": response.status, **json.loads(response.read())}))
"""


@dataclass
class Client:
    """Asks for the scores of some entities, from a pod in a namespace that may ask, until it is told to stop."""

    platform: Platform
    entities: Sequence[str]
    _asking: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    def open(self) -> None:
        """Make the namespace, and a pod in it that waits."""
        labels = {"ml-assets/scoring-client": "true", "ml-assets/mcp-client": "true"}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": WHERE, "labels": labels}}
        for made in (namespace, pod("client", WHERE, "-c", "import time; time.sleep(1e6)")):
            where = made["metadata"].get("namespace", NAMESPACE)
            self.platform.kubectl("apply", "-n", where, "-f", "-", stdin=json.dumps(made))
        self.platform.kubectl("wait", "-n", WHERE, "pod/client", "--for=condition=Ready", "--timeout=120s")

    def close(self) -> None:
        """End, whatever is open."""
        if self._asking is not None:
            self._asking.kill()
            self._asking.wait()
        self.platform.kubectl("delete", "namespace", WHERE, "--wait=false")

    def start(self) -> None:
        """Begin to ask, and return once there has been an answer: on a busy machine the first takes its time.

        Raises:
            RuntimeError: there is none in `FIRST_ANSWER_SECONDS`; with the client's record.
        """
        given = {
            "host": f"ml-assets-scoring.{NAMESPACE}.svc", "path": f"/v1/{USE_CASE.name}/score", "threads": THREADS,
            "ca": self.platform.get("configmap", "ml-assets-ca")["data"]["ca.crt"], "entities": list(self.entities),
            "token": token(self.platform),
        }  # fmt: skip
        self._exec("rm", "-f", "/tmp/stop", "/tmp/answered")
        self._asking = subprocess.Popen(
            [self.platform.program, "--kubeconfig", str(self.platform.kubeconfig), "exec", "-n", WHERE, "client", "--",
             "python", "-c", _ASK, json.dumps(given)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            self._exec("python", "-c", _WAIT)
        except RuntimeError as error:
            raise RuntimeError(f"{error}; the client's record: {self.stop()}") from error

    def call(self, tool: str, scope: str) -> dict[str, Any]:
        """Return what the MCP server answers to a call of a tool, as `_CALL` sends it, with a token of this scope."""
        given = {
            "host": f"ml-assets-mcp.{NAMESPACE}.svc", "tool": tool, "token": token(self.platform, scope),
            "ca": self.platform.get("configmap", "ml-assets-ca")["data"]["ca.crt"],
        }  # fmt: skip
        command = ["exec", "-n", WHERE, "client", "--", "python", "-c", _CALL, json.dumps(given)]
        answer: dict[str, Any] = json.loads(self.platform.kubectl(*command))
        return answer

    def stop(self) -> dict[str, Any]:
        """End asking and return the record, as `_ASK` makes it."""
        assert self._asking is not None, "start() comes first"
        self._exec("touch", "/tmp/stop")
        out, err = self._asking.communicate(timeout=120)
        self._asking = None
        assert out.strip(), err
        record: dict[str, Any] = json.loads(out)
        return record

    def _exec(self, *command: str) -> None:
        self.platform.kubectl("exec", "-n", WHERE, "client", "--", *command)


def token(platform: Platform, scope: str = f"{USE_CASE.name}:score") -> str:
    """Return an hour's token of the throwaway provider, for scores of the use case if nothing else is said."""
    data = platform.get("secret", "sandbox-token-signer")["data"]["key.json"]
    key = ECKey.import_key(json.loads(base64.b64decode(data)))
    now = int(time.time())
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "test", "iat": now, "exp": now + 3600, "scope": scope,
    }  # fmt: skip
    return jwt.encode({"alg": "ES256", "kid": str(key.kid)}, claims, key, algorithms=["ES256"])
