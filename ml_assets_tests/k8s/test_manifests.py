"""Every overlay builds, is what Kubernetes' schemas say, and keeps the policies of a bank's cluster."""

import re
from typing import Any

import kubernetes_validate
import pytest

from ml_assets_tests.k8s.manifests import OVERLAYS, ROOT, built, containers, of_kind, overlay, pods
from ml_assets_tests.k8s.test_instance import load, names_of_env

VERSION = "1.34.0"
# Kinds of others, which Kubernetes' own schemas do not know.
FOREIGN = {"ExternalSecret", "Route"}
LAUNCHING = {"ml-assets-daemon", "ml-assets-webserver-writable"}

each_overlay = pytest.mark.parametrize("name", OVERLAYS)


@pytest.mark.parametrize("folder", ["cluster", *(f"overlays/{name}" for name in OVERLAYS)])
def test_it_is_valid_for_kubernetes(folder: str) -> None:
    manifests = built(folder)
    assert manifests
    for manifest in manifests:
        if manifest["kind"] not in FOREIGN:
            kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_the_place_of_the_scoring_service_is_valid() -> None:
    kinds = set()
    for manifest in built("components/scoring"):
        kubernetes_validate.validate(manifest, VERSION, strict=True)
        kinds.add(manifest["kind"])
    assert {"HorizontalPodAutoscaler", "PodDisruptionBudget", "Service", "NetworkPolicy"} <= kinds


def test_the_namespace_enforces_the_restricted_profile() -> None:
    namespace = of_kind(built("cluster"), "Namespace")["ml-assets"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@each_overlay
def test_images_have_a_tag_that_does_not_move(name: str) -> None:
    for where, _, container in containers(overlay(name)):
        tag = container["image"].rpartition("/")[2].partition(":")[2]
        assert tag or "@sha256:" in container["image"], where
        assert tag not in {"latest", "unreleased"}, where


@each_overlay
def test_nothing_has_a_privilege(name: str) -> None:
    """Guards what the restricted profile asks for, and more: a root file system that nobody writes to."""
    for where, pod in pods(overlay(name)).items():
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, where
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"]), where
        assert {next(iter(set(volume) - {"name"})) for volume in pod["spec"]["volumes"]} <= {
            "emptyDir", "configMap", "secret",
        }, where  # fmt: skip
    for where, _, container in containers(overlay(name)):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, where
        assert context["readOnlyRootFilesystem"] is True, where
        assert context["capabilities"] == {"drop": ["ALL"]}, where


@pytest.mark.parametrize("name", ["production", "openshift"])
def test_no_user_or_group_is_named(name: str) -> None:
    """Guards OpenShift, which picks them and refuses others."""
    for where, pod in pods(overlay(name)).items():
        specs = [pod["spec"], *pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
        for spec in specs:
            named = {"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"} & set(spec["securityContext"])
            assert not named, where


@each_overlay
def test_resources_are_asked_for_and_limited(name: str) -> None:
    for where, _, container in containers(overlay(name)):
        for side in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][side]), where
    for where, pod in pods(overlay(name)).items():
        for volume in pod["spec"]["volumes"]:
            assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], where


@each_overlay
def test_what_runs_for_good_is_probed(name: str) -> None:
    for where, for_good, container in containers(overlay(name)):
        if for_good:
            assert {"startupProbe", "livenessProbe"} <= set(container), where
            assert "ports" not in container or "readinessProbe" in container, where


@each_overlay
def test_only_launchers_have_a_token(name: str) -> None:
    for where, pod in pods(overlay(name)).items():
        assert pod["spec"]["automountServiceAccountToken"] is (where in LAUNCHING), where
    (binding,) = of_kind(overlay(name), "RoleBinding").values()
    assert {subject["name"] for subject in binding["subjects"]} == LAUNCHING
    (role,) = of_kind(overlay(name), "Role").values()
    assert not of_kind(overlay(name), "ClusterRole", "ClusterRoleBinding")
    for rule in role["rules"]:
        assert "*" not in str(rule), rule
        assert "secrets" not in rule["resources"]


@each_overlay
def test_nothing_passes_that_no_policy_names(name: str) -> None:
    policies = of_kind(overlay(name), "NetworkPolicy")
    deny = policies["default-deny"]["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    known = {pod["metadata"]["labels"]["ml-assets/network"] for pod in pods(overlay(name)).values()}
    for policy in policies.values():
        for peer in _selected(policy["spec"]):
            assert peer in known | {"run", "simulate"}, f"{policy['metadata']['name']} names {peer}, which is no pod"
    for policy in policies.values():
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, []):
                assert rule[side], policy["metadata"]["name"]
                assert rule["ports"], policy["metadata"]["name"]
    assert _may_reach(policies, "code-location") == {"daemon", "webserver", "webserver-writable"}


@each_overlay
def test_every_variable_of_the_instance_is_given(name: str) -> None:
    """Guards run pods, which get the instance in their arguments and its variables from what dagster.yaml names."""
    launcher = load("k8s/base/dagster.yaml")["run_launcher"]["config"]
    maps = of_kind(overlay(name), "ConfigMap")
    ((settings,),) = {tuple(maps_named_to(pod)) for pod in launching_pods(name)}
    assert launcher["env_config_maps"] == [{"env": "ML_ASSETS_SETTINGS_MAP"}]
    given = {*maps[settings]["data"], *launcher["env_vars"], "DAGSTER_HOME"}
    needed = names_of_env(load("k8s/base/dagster.yaml")) | names_of_env(load("k8s/base/workspace.yaml"))
    assert needed - given == {"ML_ASSETS_DAGSTER_POSTGRES_URL"}, "the rest is a secret"
    assert "ml-assets-dagster-database" in launcher["env_secrets"]


@each_overlay
def test_each_release_has_settings_of_its_own(name: str) -> None:
    """Guards: during a migration, after one that failed or after a rollback, old pods and runs had the new settings."""
    (settings,) = (each for each in of_kind(overlay(name), "ConfigMap") if each.startswith("ml-assets-settings"))
    assert re.fullmatch(r"ml-assets-settings-[a-z0-9]{10}", settings)
    for _, _, container in containers(overlay(name)):
        read = [source["configMapRef"]["name"] for source in container.get("envFrom", []) if "configMapRef" in source]
        assert set(read) <= {settings}, container["name"]
    assert {tuple(maps_named_to(pod)) for pod in launching_pods(name)} == {(settings,)}


def launching_pods(name: str) -> list[dict[str, Any]]:
    """The pods that open the Dagster instance, and with it the launcher."""
    instance = "/opt/dagster/dagster.yaml"
    made = [each["spec"] for name, each in pods(overlay(name)).items() if name != "ml-assets-migrate"]
    return [
        pod
        for pod in made
        if instance in {m["mountPath"] for c in pod["containers"] for m in c.get("volumeMounts", [])}
    ]


def maps_named_to(pod: dict[str, Any]) -> list[str]:
    """The names that the launcher is given for the settings of its runs."""
    variables = [variable for container in pod["containers"] for variable in container.get("env", [])]
    return [variable["value"] for variable in variables if variable["name"] == "ML_ASSETS_SETTINGS_MAP"]


@each_overlay
def test_a_run_uses_the_image_of_its_code(name: str) -> None:
    pod = pods(overlay(name))["ml-assets-code-location"]["spec"]["containers"][0]
    assert {"name": "DAGSTER_CURRENT_IMAGE", "value": pod["image"]} in pod["env"]


@each_overlay
def test_secrets_that_are_used_are_made(name: str) -> None:
    used = {
        source["secretRef"]["name"]
        for _, _, container in containers(overlay(name))
        for source in container.get("envFrom", [])
        if "secretRef" in source and not source["secretRef"].get("optional")
    } | set(load("k8s/base/dagster.yaml")["run_launcher"]["config"]["env_secrets"])
    if name == "local":
        from ml_assets_tests.k8s.secrets import manifests

        made = {each["metadata"]["name"] for each in manifests()}
    else:
        made = set(of_kind(overlay(name), "ExternalSecret"))
    assert used <= made


def test_the_readme_names_who_is_restarted_for_a_secret() -> None:
    """Guards a rotation that forgets a workload, which would go on with the old secret until it is refused."""
    used: dict[str, set[str]] = {}
    for name, pod in pods(overlay("production")).items():
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
            for source in container.get("envFrom", []):
                if "secretRef" in source:
                    used.setdefault(source["secretRef"]["name"], set()).add(name.removeprefix("ml-assets-"))
    rows = re.findall(r"^\| `(ml-assets-[a-z0-9-]+)` \| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    said = {secret: set(re.findall(r"[a-z-]+", names.partition(":")[0])) - {"none"} for secret, names in rows}
    assert said == {secret: names - {"migrate"} for secret, names in used.items()}


@pytest.mark.parametrize("name", ["production", "openshift"])
def test_the_writable_ui_is_reached_through_its_proxy_only(name: str) -> None:
    webserver, proxy = pods(overlay(name))["ml-assets-webserver-writable"]["spec"]["containers"]
    assert webserver["args"][:3] == ["dagster-webserver", "--host", "127.0.0.1"]
    assert "ports" not in webserver
    service = of_kind(overlay(name), "Service")["ml-assets-webserver-writable"]
    assert [port["targetPort"] for port in service["spec"]["ports"]] == [proxy["ports"][0]["name"]]


@each_overlay
def test_the_ui_for_everybody_is_read_only(name: str) -> None:
    (webserver,) = pods(overlay(name))["ml-assets-webserver"]["spec"]["containers"]
    assert "--read-only" in webserver["args"]


def _selected(spec: dict[str, Any]) -> set[str]:
    """The values of `ml-assets/network` that a policy names."""
    selectors = [spec["podSelector"]]
    for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
        selectors += [peer["podSelector"] for peer in rule.get("from", rule.get("to", [])) if "podSelector" in peer]
    return {value for selector in selectors for value in _values(selector)}


def _values(selector: dict[str, Any]) -> set[str]:
    found = {v for k, v in selector.get("matchLabels", {}).items() if k == "ml-assets/network"}
    for expression in selector.get("matchExpressions", []):
        assert (expression["key"], expression["operator"]) == ("ml-assets/network", "In")
        found |= set(expression["values"])
    return found


def _may_reach(policies: dict[str, dict[str, Any]], server: str) -> set[str]:
    return {
        client
        for policy in policies.values()
        if _values(policy["spec"]["podSelector"]) == {server}
        for rule in policy["spec"].get("ingress", [])
        for peer in rule["from"]
        for client in _values(peer["podSelector"])
    }
