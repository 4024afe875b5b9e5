"""The files of deploy/ by themselves: schemas, and what has to agree between them. What cannot be checked is in deploy/README.md."""

import fnmatch
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from conftest import binary
from credentials import VARIABLES
from limits import limits, seconds
from servers import DEPLOY, ROOT

# The first with `preStop.sleep` and containers that start before others and end after them, and the newest that is known.
KUBERNETES = ["1.30.0", "1.37.0"]


def test_the_dockerfile_has_no_known_mistakes():
    done = tool("hadolint", "--no-color", "--failure-threshold", "style", str(DEPLOY / "Dockerfile"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_is_built_of_what_the_context_has():
    """Each crate that the workspace names has its manifest and sources among the files that are sent."""
    rules = (DEPLOY / "Dockerfile.dockerignore").read_text().split("\n")
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    dropped = [rule.removeprefix("**/") for rule in rules if rule.startswith("**/")]
    members = re.search(r"members = \[(.*?)\]", (ROOT / "Cargo.toml").read_text(), re.S).group(1)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    sent = [f for f in tracked if any(f == k or f.startswith(f"{k}/") for k in kept)]
    sent = [f for f in sent if not any(fnmatch.fnmatch(part, d) for part in f.split("/") for d in dropped)]
    for member in re.findall(r'"([^"]+)"', members):
        for needed in ["Cargo.toml", "src/"]:
            assert any(f.startswith(f"{member}/{needed}") for f in sent), f"{member}/{needed} is not sent"
        # What cargo looks for by name, or is told of, has to be there too, or it refuses the whole workspace.
        manifest = (ROOT / member / "Cargo.toml").read_text()
        for path in re.findall(r'^path = "([^"]+)"', manifest, re.M):
            assert f"{member}/{path}" in sent, f"{member}/{path} is not sent"
    assert "Cargo.lock" in sent and not any("node_modules" in f or f.startswith(".git/") for f in sent)


def test_compose_is_what_the_specification_says():
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_hangs_together():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    for name, service in services.items():
        for used in service.get("depends_on", {}):
            assert used in services
        for config in service.get("configs", []):
            assert (DEPLOY / compose["configs"][config["source"]]["file"]).is_file()
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} can be reached from outside: {port}"
        for network in service.get("networks", []):
            assert network in compose["networks"]
    gateways = [services["gateway1"], services["gateway2"]]
    upstream = (DEPLOY / "compose/upstream.conf").read_text()
    for gateway in gateways:
        assert gateway["read_only"] and gateway["cap_drop"] == ["ALL"]
        assert gateway["network_mode"] == "service:edge"
        assert seconds(gateway["stop_grace_period"]) > limits()["drain_timeout"]
        environment = gateway["environment"]
        assert f"server {environment['GROUPCAST_SERVER__LISTEN']} " in upstream
        assert environment["GROUPCAST_URL"] == f"http://{environment['GROUPCAST_SERVER__LISTEN']}"
        # Its metrics are led to, on a port of its own.
        ops = environment["GROUPCAST_SERVER__OPS_LISTEN"].split(":")[-1]
        assert f"127.0.0.1:{ops}:{ops}" in services["edge"]["ports"]
    assert len({gateway["environment"]["GROUPCAST_SERVER__NODE"] for gateway in gateways}) == 2
    assert len({gateway["environment"]["GROUPCAST_SERVER__OPS_LISTEN"] for gateway in gateways}) == 2
    # Variables that the configuration names are those that are set.
    for name in variables():
        assert all(name in gateway["environment"] for gateway in gateways), name


def test_compose_has_no_secret_and_does_not_start_without_them():
    text = (DEPLOY / "compose.yaml").read_text()
    commands, documented = comment(text), {}
    for line in re.findall(r"^export (.*)$", commands, re.M):
        done = subprocess.run(["sh", "-euc", f"export {line}; env"], capture_output=True, text=True, timeout=60, check=True)
        documented |= dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    # `${NAME:?message}`: compose refuses what is not set, or empty, and says the message.
    asked = re.findall(r"\$\{(.*?)\}", text)
    assert all(re.fullmatch(r"\w+:\?[^}]{10,}", one) for one in asked), asked
    names = {one.split(":")[0] for one in asked}
    assert {"GROUPCAST_JWT_SECRET", "GROUPCAST_API_KEYS", "REDIS_PASSWORD", "POSTGRES_PASSWORD"} == names
    assert all(len(documented[name]) >= 32 for name in names), documented.keys()
    for name in variables():
        if name in names:
            assert yaml.safe_load(text)["services"]["gateway1"]["environment"][name].startswith("${" + name), name
            assert "openssl rand -hex 32" in next(one for one in asked if one.startswith(name))


@pytest.mark.parametrize("file", ["shared.toml", "systemd/groupcast.toml"])
def test_what_is_shipped_to_be_run_lets_in_nobody_who_shows_nothing(file):
    text = (DEPLOY / file).read_text()
    config = tomllib.loads(text)
    # Names of variables, no secrets; and nothing for everybody.
    assert set(config["auth"]) == {"jwt_secret_env", "api_keys_env"}
    assert config["server"]["trusted_proxies"] == ["127.0.0.1"] and config["server"]["ops_listen"] == "127.0.0.1:9000"
    assert not re.search(r"[0-9a-f]{32}|whsec_\w", text)
    # Without one of its variables it is refused, by that one's name.
    env = {k: v for k, v in os.environ.items() if not k.startswith("GROUPCAST_")} | VARIABLES
    env |= {name: "redis://127.0.0.1:1" for name in variables() - set(VARIABLES)}
    command = [binary(), "serve", "--config", str(DEPLOY / file)]
    for name in VARIABLES:
        others = {k: v for k, v in env.items() if k != name}
        done = subprocess.run(command, env=others, cwd="/", capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and f"`{name}` is not set" in done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
def test_manifests_are_what_kubernetes_takes(version):
    kinds = []
    for _, document in manifests():
        kubernetes_validate.validate(document, version, strict=True)
        kinds.append(document["kind"])
    assert sorted(kinds) == ["Deployment", "Namespace", "NetworkPolicy", "PodDisruptionBudget", "Service", "Service"]


def test_a_manifest_that_is_wrong_is_refused():
    _, deployment = next(found for found in manifests() if found[1]["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES[0], strict=True)


def test_the_kustomization_names_what_is_there():
    kustomization = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
    there = {f"kubernetes/{path.name}" for path in (DEPLOY / "kubernetes").glob("*.yaml")}
    assert set(kustomization["resources"]) == there
    made = {}
    for generator in kustomization["configMapGenerator"]:
        files = [entry.split("=") for entry in generator["files"]]
        assert all((DEPLOY / entry[-1]).is_file() for entry in files)
        made[generator["name"]] = {Path(entry[0]).name for entry in files}
    pod = deployment()["spec"]["template"]["spec"]
    # The secret is made by the command in the comment, with each key that the pod asks for.
    named = {entry["valueFrom"]["secretKeyRef"]["key"] for entry in secrets(pod)}
    assert named == set(re.findall(r"--from-literal=([\w-]+)=", comment((DEPLOY / "kustomization.yaml").read_text())))
    used = {v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v}
    assert used == set(made) and made["groupcast"] == {"groupcast.toml"}
    images = {image["name"] for image in kustomization["images"]}
    assert images == {container["image"] for container in pod["containers"]}


def test_the_deployment_hangs_together():
    spec = deployment()["spec"]
    pod = spec["template"]["spec"]
    [gateway], [edge] = pod["containers"], pod["initContainers"]
    # Time to be forgotten, to drain, and to spare.
    pause = gateway["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pause + limits()["drain_timeout"] + 5
    assert edge["restartPolicy"] == "Always"
    for container in (gateway, edge):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    labels = spec["template"]["metadata"]["labels"].items()
    ports = {port["containerPort"] for port in edge["ports"]}
    assert {gateway[probe]["httpGet"]["port"] for probe in ("readinessProbe", "startupProbe")} <= ports
    for path, document in manifests():
        selector = document.get("spec", {}).get("selector", {})
        if document["kind"] == "Service":
            assert selector.items() <= labels and document["spec"]["ports"][0]["targetPort"] in ports, path
        if document["kind"] == "PodDisruptionBudget":
            assert selector["matchLabels"].items() <= labels
    assert variables() == {entry["name"] for entry in secrets(pod)}
    # Metrics are asked for where they are served, and Prometheus is let in there.
    environment = {entry["name"]: entry.get("value") for entry in gateway["env"]}
    [ops] = [port["containerPort"] for port in gateway["ports"]]
    assert environment["GROUPCAST_SERVER__OPS_LISTEN"] == f"0.0.0.0:{ops}"
    assert spec["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(ops)
    policy = next(document for _, document in manifests() if document["kind"] == "NetworkPolicy")
    rules = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["spec"]["ingress"]}
    assert set(rules) == ports | {ops} and rules[8080] is None and rules[8081] and rules[ops]
    # The name of a pod is its Deployment's, two random parts and two dashes; the gateway's bound is 32.
    assert len(deployment()["metadata"]["name"]) + 1 + 10 + 1 + 5 <= 32


def test_ports_of_nginx_are_those_that_are_led_to():
    listened = set(re.findall(r"^ +listen (\d+);", (DEPLOY / "nginx/groupcast.conf").read_text(), re.M))
    pod = deployment()["spec"]["template"]["spec"]
    assert listened == {str(port["containerPort"]) for port in pod["initContainers"][0]["ports"]}
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    environments = [compose["services"][name]["environment"] for name in ("gateway1", "gateway2")]
    ops = {environment["GROUPCAST_SERVER__OPS_LISTEN"].split(":")[-1] for environment in environments}
    assert listened | ops == {port.split(":")[-1] for port in compose["services"]["edge"]["ports"]}


def test_the_dashboard_is_what_grafana_reads():
    dashboard = json.loads((DEPLOY / "grafana/groupcast.json").read_text())
    ids, taken = set(), set()
    for panel in dashboard["panels"]:
        assert panel["id"] not in ids
        ids.add(panel["id"])
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            assert target["expr"] and target["datasource"]["uid"] == "${source}"
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"source", "instance"}


def variables() -> set:
    """Those that shared.toml names."""
    return set(re.findall(r'^\w+_env = "(\w+)"', (DEPLOY / "shared.toml").read_text(), re.M))


def comment(text: str) -> str:
    """Commands in the comment that a file begins with."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return "\n".join(line.removeprefix("#").strip() for line in lines)


def secrets(pod: dict) -> list:
    entries = [entry for entry in pod["containers"][0]["env"] if "secretKeyRef" in entry.get("valueFrom", {})]
    assert {entry["valueFrom"]["secretKeyRef"]["name"] for entry in entries} == {"groupcast"}
    return entries


def manifests():
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path, document


def deployment() -> dict:
    return next(document for _, document in manifests() if document["kind"] == "Deployment")


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)
