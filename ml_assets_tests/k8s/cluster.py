"""A throwaway Kubernetes cluster on this machine: one node, and another one while a test needs it.

    python -m ml_assets_tests.k8s.cluster [--images]     runs one until Ctrl-C; prints its administrator's KUBECONFIG

With `--images` its node holds the project's images, built from this checkout.

RBAC and Pod Security admission are on. As on OpenShift, a pod that names no user gets one that nobody has chosen: a
MutatingAdmissionPolicy gives it a random number and group 0. NetworkPolicies are enforced: kube-router's controller
makes rules of iptables of them, which what passes Debian's bridge goes through. A pod answers the names of services.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k8s.image.build import docker_daemon, find
from ml_assets_tests.k8s import image
from ml_assets_tests.k8s.certificates import Authority
from ml_assets_tests.k8s.programs import CNI, build, install

NODE_IP = "10.250.0.1"
SERVICES = "10.251.0.0/16"
KUBERNETES_IP, DNS_IP = "10.251.0.1", "10.251.0.10"
PODS = "10.252.0.0/24"  # of all nodes, on one bridge
BRIDGE, HOME_BRIDGE = "mlassets0", "mlassets1"  # of the pods; of the node's own address
API = f"https://{NODE_IP}:6443"
CGROUPS = Path("/sys/fs/cgroup")
PAUSE, DNS = "localhost/pause:local", "localhost/dns:local"
_START_SECONDS = 120


@dataclass(frozen=True)
class Node:
    """A node, with a container runtime of its own; its pods have addresses from `first` to `last` in `PODS`."""

    name: str
    ip: str
    folder: Path
    first: str
    last: str

    @property
    def socket(self) -> Path:
        """The container runtime's."""
        return self.folder / "containerd.sock"

    @property
    def processes(self) -> tuple[str, str]:
        """The names of its processes in `Cluster.processes`."""
        return f"kubelet-{self.name}", f"containerd-{self.name}"

    def ctr(self, *arguments: str, stdin: Any = None) -> str:
        """Run containerd's client and return what it prints."""
        command = ["ctr", "--address", str(self.socket), "-n", "k8s.io", *arguments]
        return subprocess.run(command, check=True, stdin=stdin, stdout=subprocess.PIPE, text=True).stdout

    def load_images(self, *tags: str) -> None:
        """Bring images of this machine's docker to the node; layers that they share go once."""
        program = find("docker")
        assert program is not None, "install() brings docker"
        with subprocess.Popen([program, "save", *tags], stdout=subprocess.PIPE) as saved:
            self.ctr("images", "import", "-", stdin=saved.stdout)
        if saved.returncode:
            raise RuntimeError(f"docker does not have all of {', '.join(tags)}")

    def kill_pods(self) -> None:
        """Kill what runs in pods: containerd leaves it alive when it goes."""
        with contextlib.suppress(subprocess.CalledProcessError, OSError):
            for task in self.ctr("tasks", "ls", "-q").split():
                with contextlib.suppress(subprocess.CalledProcessError):
                    self.ctr("tasks", "delete", "--force", task)

    def clean_up(self) -> None:
        """Take back its mounts, and what containerd has left running."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it may have ended meanwhile
                if str(self.socket) in (process / "cmdline").read_text().split("\0"):
                    os.kill(int(process.name), signal.SIGKILL)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.folder}/")), reverse=True):
            run("umount", "-l", mount, check=False)
        for name in ("containerd", "containerd-state", "kubelet"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for made in cgroups_of(self):
            for each in sorted((*made.rglob("*/"), made), reverse=True):
                with contextlib.suppress(OSError):
                    each.rmdir()


@dataclass
class Cluster:
    """A running cluster; `kubeconfig` is that of its administrator."""

    folder: Path
    kubeconfig: Path
    programs: Path
    authority: Authority
    uid: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl as the administrator and return what it prints.

        Raises:
            RuntimeError: it fails; with what it said.
        """
        return kubectl(self.programs / "kubectl", self.kubeconfig, *arguments, stdin=stdin, check=check)

    @property
    def node(self) -> Node:
        """The node that is always there."""
        return Node("node", NODE_IP, self.folder, "10.252.0.2", "10.252.0.199")

    def start(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a process that lives as long as the cluster; its output goes to `<folder>/<name>.log`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(environment or {})}
            )

    def log(self, name: str, lines: int = 30) -> str:
        """Return the end of a process's output."""
        text = (self.folder / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def require_running(self) -> None:
        """Do nothing if all processes run.

        Raises:
            RuntimeError: one has ended; with the end of its output.
        """
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{self.log(name)}")

    def wait_for(self, what: str, ready: Any, seconds: float = _START_SECONDS) -> None:
        """Wait until a function returns something true.

        Raises:
            RuntimeError: a process has ended, or the time is up.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.require_running()
            with contextlib.suppress(OSError, RuntimeError, subprocess.CalledProcessError):
                if ready():
                    return
            time.sleep(0.5)
        raise RuntimeError(f"{what} was not ready after {seconds:.0f} s; logs are in {self.folder}")


def kubectl(
    program: Path | str, kubeconfig: Path, *arguments: str, stdin: str | None = None, check: bool = True
) -> str:
    """Run kubectl and return what it prints.

    Raises:
        RuntimeError: it fails; with what it said.
    """
    done = subprocess.run(
        [str(program), "--kubeconfig", str(kubeconfig), *arguments],
        input=stdin, text=True, capture_output=True, check=False,
    )  # fmt: skip
    if check and done.returncode:
        raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()[-3000:]}")
    return done.stdout if check else done.stdout + done.stderr


@contextlib.contextmanager
def control_plane(folder: Path) -> Iterator[Cluster]:
    """Run etcd and an API server with RBAC, Pod Security and mutating policies; no node."""
    install()
    programs = build()
    run("ip", "link", "add", HOME_BRIDGE, "type", "bridge", check=False)
    run("ip", "addr", "replace", f"{NODE_IP}/32", "dev", HOME_BRIDGE)
    run("ip", "link", "set", HOME_BRIDGE, "up")
    authority = Authority(folder / "pki")
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
        NODE_IP,
        KUBERNETES_IP,
        "127.0.0.1",
    ]
    authority.issue("apiserver", "kube-apiserver", hosts=names)
    authority.issue("serviceaccount", "service-accounts")
    authority.issue("admin", "admin", groups=["system:masters"])
    kubeconfig = write_kubeconfig(folder, authority, "admin")
    cluster = Cluster(folder, kubeconfig, programs, authority, random.randrange(1_000_600_000, 1_000_700_000))
    try:
        start_api_server(cluster)
        yield cluster
    finally:
        for process in reversed(cluster.processes.values()):
            stop(process)
        run("ip", "link", "del", HOME_BRIDGE, check=False)


def start_api_server(cluster: Cluster) -> None:
    """Start etcd and the API server, and wait for them."""
    etcd = find("etcd")
    assert etcd is not None, "install() brings etcd"
    cluster.start(
        "etcd", etcd, "--data-dir", str(cluster.folder / "etcd"),
        "--listen-client-urls", "http://127.0.0.1:23790", "--advertise-client-urls", "http://127.0.0.1:23790",
        "--listen-peer-urls", "http://127.0.0.1:23800",
    )  # fmt: skip
    pki = cluster.authority.folder
    cluster.start(
        "kube-apiserver", str(cluster.programs / "kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:23790",
        f"--bind-address={NODE_IP}", f"--advertise-address={NODE_IP}", "--secure-port=6443",
        f"--service-cluster-ip-range={SERVICES}",
        f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/admin.crt", f"--kubelet-client-key={pki}/admin.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={pki}/serviceaccount.key",
        f"--service-account-key-file={pki}/serviceaccount.key",
        "--authorization-mode=Node,RBAC", "--kubelet-preferred-address-types=InternalIP",
        "--enable-admission-plugins=NodeRestriction,PodSecurity,MutatingAdmissionPolicy",
        "--feature-gates=MutatingAdmissionPolicy=true",
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
    )  # fmt: skip
    cluster.wait_for("the API server", lambda: cluster.kubectl("get", "--raw", "/readyz") == "ok")
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(anyone(cluster.uid)))


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run a whole cluster; afterwards nothing of it is left but its logs."""
    with control_plane(folder) as running:
        try:
            start_controllers(running)
            join(running, running.node)
            start_network(running)
            yield running
        finally:
            for name in (running.node.processes[0], "kube-controller-manager"):
                if name in running.processes:
                    stop(running.processes[name])
            running.node.kill_pods()
            for process in reversed(running.processes.values()):
                stop(process)
            clean_up(running)


@contextlib.contextmanager
def second_node(running: Cluster, *images: str) -> Iterator[Node]:
    """Let another node with these images be part of the cluster for a while; see `lose`."""
    node = Node("second", "10.250.0.2", running.folder / "second", "10.252.0.200", "10.252.0.250")
    run("ip", "addr", "replace", f"{node.ip}/32", "dev", HOME_BRIDGE)
    try:
        join(running, node)
        node.load_images(*images)
        yield node
    finally:
        lose(running, node)
        running.kubectl("delete", "node", node.name, "--ignore-not-found")
        node.clean_up()
        run("ip", "addr", "del", f"{node.ip}/32", "dev", HOME_BRIDGE, check=False)


def lose(running: Cluster, node: Node) -> None:
    """Let a node be gone at once, as without power: nothing of it runs, nobody has been told."""
    kubelet, containerd = (running.processes.pop(name, None) for name in node.processes)
    if kubelet is not None:
        kubelet.kill()
        kubelet.wait()
        node.kill_pods()
    if containerd is not None:
        containerd.kill()
        containerd.wait()


def start_controllers(running: Cluster) -> None:
    """Start controllers and scheduler."""
    folder, programs, pki = running.folder, running.programs, running.authority.folder
    for name, user in (
        ("controller-manager", "system:kube-controller-manager"),
        ("scheduler", "system:kube-scheduler"),
        ("proxy", "system:kube-proxy"),
    ):
        running.authority.issue(name, user)
        write_kubeconfig(folder, running.authority, name)
    running.start(
        "kube-controller-manager", str(programs / "kube-controller-manager"),
        f"--kubeconfig={folder}/controller-manager.kubeconfig", "--use-service-account-credentials",
        f"--service-account-private-key-file={pki}/serviceaccount.key", f"--root-ca-file={pki}/ca.crt",
        "--leader-elect=false", "--node-monitor-grace-period=120s",
    )  # fmt: skip
    running.start(
        "kube-scheduler", str(programs / "kube-scheduler"),
        f"--kubeconfig={folder}/scheduler.kubeconfig", "--leader-elect=false",
    )  # fmt: skip


def join(running: Cluster, node: Node) -> None:
    """Start a node's container runtime and kubelet, and wait until it is ready."""
    folder, pki = node.folder, running.authority.folder
    folder.mkdir(exist_ok=True)
    kubelet, _ = node.processes
    server = f"{kubelet}-server"
    running.authority.issue(kubelet, f"system:node:{node.name}", groups=["system:nodes"])
    running.authority.issue(server, node.name, hosts=[node.name, node.ip])
    start_containerd(running, node)
    configuration = {
        "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": node.ip,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": f"{pki}/ca.crt"}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/{server}.crt", "tlsPrivateKeyFile": f"{pki}/{server}.key",
        "cgroupDriver": "cgroupfs", "cgroupRoot": cgroup_of(node), "failCgroupV1": False, "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{node.socket}",
        "clusterDNS": [DNS_IP], "clusterDomain": "cluster.local", "resolvConf": "",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "2%", "imagefs.available": "2%"},
        "imageGCHighThresholdPercent": 99, "imageGCLowThresholdPercent": 98, "maxPods": 60, "oomScoreAdj": 0,
        "podLogsDir": f"{folder}/pods",
        "volumeStatsAggPeriod": "5s", "healthzPort": 0, "enableServer": True, "serializeImagePulls": True,
    }  # fmt: skip
    (folder / "kubelet.json").write_text(json.dumps(configuration))
    running.start(
        kubelet, str(running.programs / "kubelet"), f"--config={folder}/kubelet.json",
        f"--kubeconfig={write_kubeconfig(running.folder, running.authority, kubelet)}",
        f"--root-dir={folder}/kubelet", f"--cert-dir={folder}/kubelet-pki",
        f"--hostname-override={node.name}", f"--node-ip={node.ip}",
    )  # fmt: skip
    ready = '{.status.conditions[?(@.type=="Ready")].status}'
    running.wait_for(
        f"node {node.name}", lambda: running.kubectl("get", "node", node.name, "-o", f"jsonpath={ready}") == "True"
    )


def cgroup_of(node: Node) -> str:
    """Return the control group of a node's pods, and make it: a kubelet ends what it does not know in its own."""
    for made in cgroups_of(node):
        made.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if made.parent != CGROUPS and (made / setting).exists():  # version 1, where it is empty at first
                (made / setting).write_text((made.parent / setting).read_text())
    return f"/mlassets-{node.name}"


def cgroups_of(node: Node) -> list[Path]:
    """Return the folders of a node's control group: one, or in version 1 one in each hierarchy."""
    unified = (CGROUPS / "cgroup.controllers").exists()
    return [each / f"mlassets-{node.name}" for each in ([CGROUPS] if unified else CGROUPS.iterdir()) if each.is_dir()]


def start_network(running: Cluster) -> None:
    """Start what lets pods reach services, on all nodes since they share this machine's packet rules, and DNS."""
    folder, programs, node = running.folder, running.programs, running.node.name
    running.start(
        "kube-proxy", str(programs / "kube-proxy"), f"--kubeconfig={folder}/proxy.kubeconfig",
        "--proxy-mode=iptables", f"--cluster-cidr={PODS}", f"--hostname-override={node}",
        "--conntrack-max-per-core=0", "--healthz-bind-address=", f"--metrics-bind-address={NODE_IP}:10249",
    )  # fmt: skip
    running.start(
        "netpol", str(programs / "netpol"), f"--kubeconfig={running.kubeconfig}", f"--hostname-override={node}",
        f"--service-cluster-ip-range={SERVICES}",
    )  # fmt: skip
    running.kubectl("apply", "-f", "-", stdin=json.dumps(dns()))
    running.kubectl("-n", "kube-system", "rollout", "status", "deployment/dns", "--timeout=120s")


def start_containerd(running: Cluster, node: Node) -> None:
    """Start a node's containerd, whose pods are on the cluster's bridge, and give it the images of a cluster."""
    folder = node.folder
    (folder / "cni").mkdir()
    (folder / "cni" / "10-bridge.conflist").write_text(
        json.dumps(
            {
                "cniVersion": "0.4.0",
                "name": "throwaway",
                "plugins": [
                    {
                        "type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": True, "hairpinMode": True,
                        "ipam": {
                            "type": "host-local", "dataDir": str(folder / "ipam"),
                            "ranges": [[{"subnet": PODS, "rangeStart": node.first, "rangeEnd": node.last}]],
                            "routes": [{"dst": "0.0.0.0/0"}],
                        },
                    }
                ],
            }
        )
    )  # fmt: skip
    (folder / "containerd.toml").write_text(
        f"""version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
[grpc]
  address = "{node.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  restrict_oom_score_adj = true  # where the machine itself may not lower it
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI}"
    conf_dir = "{folder}/cni"
"""
    )
    containerd = find("containerd")
    assert containerd is not None, "install() brings containerd"
    running.start(node.processes[1], containerd, "--config", str(folder / "containerd.toml"))
    running.wait_for("containerd", lambda: node.ctr("version"))
    program = find("docker")
    assert program is not None, "install() brings docker"
    for name, tag in (("pause", PAUSE), ("dns", DNS)):
        archive = subprocess.run(["tar", "-C", str(running.programs), "-c", name], check=True, stdout=subprocess.PIPE)
        subprocess.run(
            [program, "import", "--change", f'ENTRYPOINT ["/{name}"]', "-", tag],
            check=True, input=archive.stdout, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    node.load_images(PAUSE, DNS)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not bridged.exists():
        run("modprobe", "br_netfilter")
    bridged.write_text("1")


def clean_up(running: Cluster) -> None:
    """Take back mounts, interfaces and packet rules, and what containerd has left running."""
    run(str(running.programs / "kube-proxy"), "--cleanup", check=False)
    run("ip", "link", "del", BRIDGE, check=False)
    running.node.clean_up()
    namespaces = Path("/run/netns")
    for namespace in namespaces.glob("cni-*") if namespaces.is_dir() else []:
        run("ip", "netns", "del", namespace.name, check=False)
    shutil.rmtree(running.folder / "etcd", ignore_errors=True)


def dns() -> dict[str, Any]:
    """Return what answers the names of services, in the namespace where NetworkPolicies look for it."""
    named = {"name": "dns", "namespace": "kube-system"}
    labels = {"k8s-app": "dns"}
    container = {
        "name": "dns", "image": DNS, "ports": [{"containerPort": 53, "protocol": "UDP"}],
        "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
    }  # fmt: skip
    pod = {
        "serviceAccountName": "dns", "containers": [container],
        "securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
    }  # fmt: skip
    rbac = "rbac.authorization.k8s.io"
    items = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named},
        {
            "apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": "dns"},
            "rules": [{"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]}],
        },
        {
            "apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "dns"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "dns"},
            "subjects": [{"kind": "ServiceAccount", **named}],
        },
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": named,
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
        },
        {
            "apiVersion": "v1", "kind": "Service", "metadata": named,
            "spec": {"clusterIP": DNS_IP, "selector": labels, "ports": [{"port": 53, "protocol": "UDP"}]},
        },
    ]  # fmt: skip
    return {"apiVersion": "v1", "kind": "List", "items": items}


def anyone(uid: int) -> dict[str, Any]:
    """Return the policy that gives pods without a user this one, as OpenShift's restricted-v2 does."""
    group = "admissionregistration.k8s.io/v1beta1"
    policy = {
        "apiVersion": group, "kind": "MutatingAdmissionPolicy", "metadata": {"name": "anyone"},
        "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ]
            },
            "matchConditions": [
                {
                    "name": "names-no-user",
                    "expression": "!has(object.spec.securityContext) || !has(object.spec.securityContext.runAsUser)",
                }
            ],
            "mutations": [
                {
                    "patchType": "ApplyConfiguration",
                    "applyConfiguration": {
                        "expression": "Object{spec: Object.spec{securityContext: Object.spec.securityContext{"
                        f"runAsUser: {uid}, fsGroup: {uid}" "}}}"
                    },
                }
            ],
        },
    }  # fmt: skip
    binding = {
        "apiVersion": group, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": "anyone"},
        "spec": {"policyName": "anyone"},
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "List", "items": [policy, binding]}


def write_kubeconfig(folder: Path, authority: Authority, name: str) -> Path:
    """Write `<folder>/<name>.kubeconfig` for the holder of a certificate of that name."""
    pki = authority.folder
    path = folder / f"{name}.kubeconfig"
    configuration = {
        "apiVersion": "v1", "kind": "Config", "current-context": "throwaway",
        "clusters": [{"name": "throwaway", "cluster": {"server": API, "certificate-authority": str(pki / "ca.crt")}}],
        "users": [
            {
                "name": name,
                "user": {"client-certificate": str(pki / f"{name}.crt"), "client-key": str(pki / f"{name}.key")},
            }
        ],
        "contexts": [{"name": "throwaway", "context": {"cluster": "throwaway", "user": name}}],
    }  # fmt: skip
    path.write_text(json.dumps(configuration))
    return path


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process, by force if it does not end in time."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(*command: str, check: bool = True) -> None:
    """Run a command of which nobody wants the output."""
    program = find(command[0])
    if program is None:
        raise FileNotFoundError(f"{command[0]} is not installed")
    subprocess.run([program, *command[1:]], check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main(arguments: Sequence[str]) -> None:
    """Run a cluster until interrupted."""
    with (
        tempfile.TemporaryDirectory(prefix="ml_assets_k8s_") as folder,
        docker_daemon(),
        (control_plane if "--control-plane" in arguments else cluster)(Path(folder)) as running,
    ):
        if "--images" in arguments:
            running.node.load_images(*image.build_all())
        print(running.kubeconfig, flush=True)  # noqa: T201 - whoever started it needs this
        with contextlib.suppress(KeyboardInterrupt):
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
