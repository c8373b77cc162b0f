"""Every overlay builds, is what Kubernetes' schemas say, and keeps the policies of a bank's cluster."""

import re
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest

from ml_assets.alerts.durations import duration
from ml_assets.alerts.routes import Smtp, read_routing
from ml_assets.desk.people import networks, read_roles
from ml_assets.serving.auth import tls_options
from ml_assets.settings import Settings
from ml_assets_tests.k8s.manifests import BANKS, CLOUDS, OVERLAYS, ROOT, built, containers, of_kind, overlay, pods
from ml_assets_tests.k8s.test_instance import load, names_of_env

VERSION = "1.34.0"
# Kinds of others, which Kubernetes' own schemas do not know.
FOREIGN = {"Certificate", "ExternalSecret", "Route"}
S3 = "ml-assets-s3-"
LAUNCHING = {"ml-assets-daemon", "ml-assets-webserver-writable"}

each_overlay = pytest.mark.parametrize("name", OVERLAYS)


@pytest.mark.parametrize("folder", ["cluster", *(f"overlays/{name}" for name in OVERLAYS)])
def test_it_is_valid_for_kubernetes(folder: str) -> None:
    manifests = built(folder)
    assert manifests
    for manifest in manifests:
        if manifest["kind"] not in FOREIGN:
            kubernetes_validate.validate(manifest, VERSION, strict=True)


@each_overlay
def test_the_scoring_service_drains_within_its_grace_and_is_scaled(name: str) -> None:
    """Guards: a pod is killed before it has ended its answers; a deployment takes back what the autoscaler did."""
    made = overlay(name)
    deployment = of_kind(made, "Deployment")["ml-assets-scoring"]["spec"]
    assert "replicas" not in deployment
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    values = {variable["name"]: variable["value"] for variable in container["env"]}
    drained = float(values["ML_ASSETS_SERVING_DRAIN_SECONDS"])
    assert drained >= 5
    assert drained + 20 + 5 < pod["terminationGracePeriodSeconds"], "answers and Kafka have time after it"
    (scaler,) = of_kind(made, "HorizontalPodAutoscaler").values()
    assert scaler["spec"]["scaleTargetRef"]["name"] == "ml-assets-scoring"
    assert scaler["spec"]["minReplicas"] >= 2
    for budget in of_kind(made, "PodDisruptionBudget").values():
        assert budget["spec"] == {"maxUnavailable": 1, "selector": budget["spec"]["selector"]}


@pytest.mark.parametrize("service", ["scoring", "mcp"])
@each_overlay
def test_scores_and_tools_are_asked_for_over_tls_and_with_tokens(name: str, service: str) -> None:
    """Guards a token in clear, and a service that refuses to start since nobody says whose tokens are good."""
    made = overlay(name)
    (container,) = pods(made)[f"ml-assets-{service}"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
    values = {variable["name"]: variable["value"] for variable in container["env"]}
    (settings,) = (m["data"] for n, m in of_kind(made, "ConfigMap").items() if n.startswith("ml-assets-settings"))
    read = Settings(**{key.removeprefix("ML_ASSETS_").lower(): value for key, value in (settings | values).items()
                       if key.startswith("ML_ASSETS_SERVING_")})  # fmt: skip
    assert tls_options(read)
    assert all((read.serving_jwks, read.serving_issuer, read.serving_audience))
    ways_in = [
        rule
        for policy in of_kind(made, "NetworkPolicy").values()
        if _values(policy["spec"]["podSelector"]) == {service}
        for rule in policy["spec"].get("ingress", [])
    ]
    (port,) = container["ports"]
    assert container["args"][container["args"].index("--port") + 1] == str(port["containerPort"])
    assert [rule["ports"] for rule in ways_in] == [[{"port": port["containerPort"]}]]
    assert all("namespaceSelector" in peer and "podSelector" not in peer for rule in ways_in for peer in rule["from"])
    if name == "openshift":
        route = of_kind(made, "Route")[f"ml-assets-{service}"]["spec"]
        assert route["tls"]["termination"] == "passthrough"
        assert route["host"] in of_kind(made, "Certificate")[f"ml-assets-{service}"]["spec"]["dnsNames"]


@each_overlay
def test_the_mcp_server_has_a_second_pod_and_time_to_drain(name: str) -> None:
    """Guards an update, or a node that is emptied, in which agents are told nothing."""
    made = overlay(name)
    deployment = of_kind(made, "Deployment")["ml-assets-mcp"]["spec"]
    assert deployment["replicas"] == (1 if name == "local" else 2)
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    values = {variable["name"]: variable["value"] for variable in container["env"]}
    assert float(values["ML_ASSETS_SERVING_DRAIN_SECONDS"]) + 20 < pod["terminationGracePeriodSeconds"]
    assert (container["livenessProbe"]["httpGet"]["path"], container["readinessProbe"]["httpGet"]["path"]) == (
        "/health/live", "/health/ready",
    )  # fmt: skip
    labels = deployment["template"]["metadata"]["labels"].items()
    for kind, selector in (("PodDisruptionBudget", "matchLabels"), ("Service", None)):
        spec = of_kind(made, kind)["ml-assets-mcp"]["spec"]["selector"]
        assert (spec[selector] if selector else spec).items() <= labels, kind


@pytest.mark.parametrize("service", ["scoring", "mcp"])
@each_overlay
def test_what_only_reads_is_given_a_login_of_its_own(name: str, service: str) -> None:
    """Guards the login of runs, which may write."""
    readers = {
        where.partition("/")[0]
        for where, _, container in containers(overlay(name))
        for source in container.get("envFrom", [])
        if source.get("secretRef", {}).get("name") == f"ml-assets-{service}-database"
    }
    assert readers == {f"ml-assets-{service}"}


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


@pytest.mark.parametrize("name", BANKS)
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
def test_duckdb_is_short_of_room_before_its_volume_is(name: str) -> None:
    """Guards an eviction, which tells nobody what was too large: more was spilled than the volume may hold."""
    sizes = {"Gi": 1024, "Mi": 1}
    launcher = load("k8s/base/dagster.yaml")["run_launcher"]["config"]
    run = dict(variable.split("=") for variable in launcher["env_vars"] if "=" in variable)
    (mount,) = (m for m in launcher["volume_mounts"] if m["mountPath"] == run["ML_ASSETS_SPILL_ROOT"])
    (volume,) = (v for v in launcher["volumes"] if v["name"] == mount["name"])
    limit = volume["emptyDir"]["sizeLimit"]
    assert int(run["ML_ASSETS_SPILL_MIB"]) < int(limit[:-2]) * sizes[limit[-2:]]
    (settings,) = (
        m["data"] for n, m in of_kind(overlay(name), "ConfigMap").items() if n.startswith("ml-assets-settings")
    )
    assert "ML_ASSETS_SPILL_ROOT" not in settings, "below /tmp/ml_assets, the image's home"
    for where, pod in pods(overlay(name)).items():
        for volume in pod["spec"]["volumes"]:
            if volume["name"] == "tmp" and "emptyDir" in volume:
                limit = volume["emptyDir"]["sizeLimit"]
                assert int(settings["ML_ASSETS_SPILL_MIB"]) < int(limit[:-2]) * sizes[limit[-2:]], where


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
    assert not [
        rule for rule in role["rules"] if "pods" in rule["resources"] and {"delete", "create"} & set(rule["verbs"])
    ]
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
    given = {*maps[settings]["data"], *(variable.split("=")[0] for variable in launcher["env_vars"]), "DAGSTER_HOME"}
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
    """A key of the store may be missing only where pods have a role in its place."""
    sources = [
        source["secretRef"]
        for _, _, container in containers(overlay(name))
        for source in container.get("envFrom", [])
        if "secretRef" in source
    ] + secrets_of_runs()
    used = {
        source["name"]
        for source in sources
        if not source.get("optional") or (source["name"].startswith(S3) and name not in CLOUDS)
    }
    volumes = [volume for pod in pods(overlay(name)).values() for volume in pod["spec"]["volumes"]]
    used |= {volume["secret"]["secretName"] for volume in volumes if "secret" in volume} - {"sandbox-postgres"}
    if name == "local":
        from ml_assets_tests.k8s.secrets import manifests

        made = {each["metadata"]["name"] for each in manifests()}
    else:
        made = set(of_kind(overlay(name), "ExternalSecret", "Secret"))
        made |= {each["spec"]["secretName"] for each in of_kind(overlay(name), "Certificate").values()}
    assert used <= made


def secrets_of_runs() -> list[dict[str, Any]]:
    """The secrets that the launcher gives to runs, as a pod names them."""
    launcher = load("k8s/base/dagster.yaml")["run_launcher"]["config"]
    more = launcher["run_k8s_config"]["container_config"]["env_from"]
    return [{"name": secret} for secret in launcher["env_secrets"]] + [source["secret_ref"] for source in more]


def test_the_readme_names_who_is_restarted_for_a_secret() -> None:
    """Guards a rotation that forgets a workload, which would go on with the old secret until it is refused."""
    used: dict[str, set[str]] = {}
    for name, pod in pods(overlay("production")).items():
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
            for source in container.get("envFrom", []):
                if "secretRef" in source:
                    used.setdefault(source["secretRef"]["name"], set()).add(name.removeprefix("ml-assets-"))
        for volume in pod["spec"]["volumes"]:
            if "secret" in volume:
                used.setdefault(volume["secret"]["secretName"], set()).add(name.removeprefix("ml-assets-"))
    rows = re.findall(r"^\| `(ml-assets-[a-z0-9-]+)` \| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    said = {secret: set(re.findall(r"[a-z-]+", names.partition(":")[0])) - {"none"} for secret, names in rows}
    assert said == {secret: names - {"migrate"} for secret, names in used.items()}


@pytest.mark.parametrize("ui", ["webserver", "webserver-writable"])
@pytest.mark.parametrize("name", BANKS)
def test_a_ui_is_reached_through_its_proxy_only(name: str, ui: str) -> None:
    """Guards: the read-only UI had a Route and no login."""
    made = overlay(name)
    webserver, proxy = pods(made)[f"ml-assets-{ui}"]["spec"]["containers"]
    assert webserver["args"][webserver["args"].index("--host") + 1] == "127.0.0.1"
    assert "ports" not in webserver
    (service,) = of_kind(made, "Service")[f"ml-assets-{ui}"]["spec"]["ports"]
    assert service["targetPort"] == proxy["ports"][0]["name"]
    named = [policy["spec"] for policy in of_kind(made, "NetworkPolicy").values() if ui in _selected(policy["spec"])]
    ways_in = [rule for spec in named if ui in _values(spec["podSelector"]) for rule in spec.get("ingress", [])]
    assert [rule["ports"] for rule in ways_in] == [[{"port": proxy["ports"][0]["containerPort"]}]]
    for route in of_kind(made, "Route").values():
        if route["spec"]["to"]["name"].startswith("ml-assets-webserver"):
            assert route["spec"]["port"]["targetPort"] == "proxy"


@pytest.mark.parametrize("name", BANKS)
def test_the_desk_is_reached_through_its_proxy_and_believes_nobody_else(name: str) -> None:
    """Guards a header of anybody that says who asks, and a way around the proxy that says it."""
    made = overlay(name)
    desk, proxy = pods(made)["ml-assets-desk"]["spec"]["containers"]
    assert desk["args"][desk["args"].index("--host") + 1] == "127.0.0.1"
    assert "ports" not in desk
    values = {variable["name"]: variable["value"] for variable in desk["env"]}
    assert networks(values["ML_ASSETS_DESK_PROXY"]) == networks("127.0.0.1/32")
    port = desk["args"][desk["args"].index("--port") + 1]
    assert f"--upstream=http://127.0.0.1:{port}" in proxy["args"]
    assert "--pass-user-headers=true" in proxy["args"]
    (settings,) = (m["data"] for n, m in of_kind(made, "ConfigMap").items() if n.startswith("ml-assets-settings"))
    roles = read_roles(settings["ML_ASSETS_DESK_ROLES"])
    assert "lead" in {role for group in roles.values() for role in group.values()}
    assert f"--allowed-group={next(iter(roles))}" in proxy["args"]
    (service,) = of_kind(made, "Service")["ml-assets-desk"]["spec"]["ports"]
    assert service["targetPort"] == proxy["ports"][0]["name"]
    named = [policy["spec"] for policy in of_kind(made, "NetworkPolicy").values()]
    ways_in = [rule for spec in named if "desk" in _values(spec["podSelector"]) for rule in spec.get("ingress", [])]
    assert [rule["ports"] for rule in ways_in] == [[{"port": proxy["ports"][0]["containerPort"]}]]
    budget = of_kind(made, "PodDisruptionBudget")["ml-assets-desk"]["spec"]
    assert budget["selector"]["matchLabels"].items() <= of_kind(made, "Deployment")["ml-assets-desk"]["metadata"]["labels"].items()  # fmt: skip # noqa: E501


@each_overlay
def test_the_desk_is_given_a_login_of_its_own(name: str) -> None:
    """Guards the login of runs, which may change what it reads: the desk adds to its ledger alone."""
    read = {
        source["secretRef"]["name"]
        for where, _, container in containers(overlay(name))
        if where.partition("/")[0] == "ml-assets-desk"
        for source in container.get("envFrom", [])
        if "database" in source.get("secretRef", {}).get("name", "")
    }
    assert read == {"ml-assets-desk-database"}


@pytest.mark.parametrize("name", BANKS)
def test_each_ui_lets_another_group_in_and_believes_only_the_ingress(name: str) -> None:
    """Guards headers of anybody (X-Forwarded-...), and a session of the one UI that is taken by the other."""
    proxies = [
        pods(overlay(name))[f"ml-assets-{ui}"]["spec"]["containers"][1]
        for ui in ("desk", "webserver", "webserver-writable")
    ]
    for option in ("--allowed-group=", "--cookie-name="):
        assert len({word for proxy in proxies for word in proxy["args"] if word.startswith(option)}) == 3
    assert len({source["secretRef"]["name"] for proxy in proxies for source in proxy["envFrom"]}) == 3
    for proxy in proxies:
        (trusted,) = [word.partition("=")[2] for word in proxy["args"] if word.startswith("--trusted-proxy-ip=")]
        assert ip_network(trusted).prefixlen >= 16
        assert not [word for word in proxy["args"] if word.startswith(("--trusted-ip", "--skip-auth", "--api-route"))]


@each_overlay
def test_the_ui_for_everybody_is_read_only(name: str) -> None:
    webserver, *_ = pods(overlay(name))["ml-assets-webserver"]["spec"]["containers"]
    assert "--read-only" in webserver["args"]


@each_overlay
def test_each_workload_has_a_key_of_s3_of_its_own(name: str) -> None:
    """Guards one key for all, with which the lander or a UI could replace a model."""
    read = {
        where.partition("/")[0]: keys_of(container)
        for where, _, container in containers(overlay(name))
        if keys_of(container)
    }
    read["ml-assets-run"] = [secret["name"] for secret in secrets_of_runs() if secret["name"].startswith(S3)]
    assert read == {workload: [workload.replace("ml-assets-", S3)] for workload in read}
    assert {path.stem for path in (ROOT / "s3").glob("*.json")} == {
        workload.removeprefix("ml-assets-") for workload in read
    }


def keys_of(container: dict[str, Any]) -> list[str]:
    """The secrets with keys of S3 that a container is given."""
    named = [source["secretRef"]["name"] for source in container.get("envFrom", []) if "secretRef" in source]
    return [secret for secret in named if secret.startswith(S3)]


def test_a_run_reads_the_secrets_that_the_cluster_allows() -> None:
    """Guards a secret that is given to runs in one place and refused to them in the other."""
    policy = of_kind(built("cluster"), "ValidatingAdmissionPolicy")["ml-assets-runs"]["spec"]
    (allowed,) = [variable["expression"] for variable in policy["variables"] if variable["name"] == "secrets"]
    assert re.findall(r"'([^']+)'", allowed) == [secret["name"] for secret in secrets_of_runs()]
    (by,) = policy["matchConditions"]
    assert set(re.findall(r":(ml-assets-[a-z-]+)'", by["expression"])) == LAUNCHING
    (binding,) = of_kind(built("cluster"), "ValidatingAdmissionPolicyBinding").values()
    assert "Deny" in binding["spec"]["validationActions"]


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


@each_overlay
def test_the_evaluator_of_alerts_has_routes_that_can_be_read_and_may_reach_them(name: str) -> None:
    """Guards a typo in the routes, found when something has happened, and a sink behind a closed port."""
    made = overlay(name)
    pod = pods(made)["ml-assets-alerts"]["spec"]
    (container,) = pod["containers"]
    values = {variable["name"]: variable["value"] for variable in container["env"]}
    mounted = {volume["name"]: volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    folder, _, file = values["ML_ASSETS_ALERT_ROUTES"].rpartition("/")
    routing = read_routing(of_kind(made, "ConfigMap")[mounted[mounts[folder]]]["data"][file], where=name)
    policies = [
        policy["spec"]
        for policy in of_kind(made, "NetworkPolicy").values()
        if _values(policy["spec"]["podSelector"]) == {"alerts"}
    ]
    open_ports = {port["port"] for spec in policies for rule in spec.get("egress", []) for port in rule["ports"]}
    needed = {one.port if isinstance(one, Smtp) else urlsplit(one.url).port or 443 for one in routing.sinks.values()}
    assert needed == open_ports, "no way out that no sink needs, either"
    (settings,) = (m["data"] for n, m in of_kind(made, "ConfigMap").items() if n.startswith("ml-assets-settings"))
    assert settings["ML_ASSETS_ALERT_CRON"] == "", "else runs would evaluate too, a pod each time"
    duration(container["args"][container["args"].index("--every") + 1], where=name)
