"""Every metric that the dashboard and the alerts name is one that a running gateway has; and the alerts do what they say."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from brokers import Nats, Redis
from client import connect, run
from conftest import Gateway, make_database, wait_for
from servers import DEPLOY, get, post

CONFIG = """
[server]
data_dir = "data"

[layer]
kind = "{kind}"
url = "{url}"
dialect = "{dialect}"

[jobs]
single_gateway = true

[source.shop]
kind = "sqlite"
path = "shop.db"

[[query]]
id = 7
name = "goods"
source = "shop"
sql = "select name from goods"

[[consumer]]
name = "queries"
group = "my_group"
type = "execute_query"
run = "query"

[[consumer]]
name = "backend"
group = "my_group"
type = "call"
run = "http"
url = "http://127.0.0.1:1/"
allow_private = true
durability = "memory"
max_attempts = 1

[hooks]
url = "http://127.0.0.1:1/"
allow_private = true
events = ["subscribe"]
groups = ["private.*"]
"""

SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """The names of all series of gateways with everything that counts (a broker, Django's dialect, work that was done), and the
    text of the one with Redis."""
    redis = told(tmp_path_factory.mktemp("redis"), Redis, "redis", "channels_redis.core")
    nats = told(tmp_path_factory.mktemp("nats"), Nats, "nats", "channels_nats")
    assert "groupcast_foreign_waiting" in nats
    return series(redis) | series(nats), redis


def told(folder, broker, kind, dialect) -> str:
    server = broker(folder / "broker")
    (folder / "groupcast.toml").write_text(CONFIG.format(kind=kind, url=server.url, dialect=dialect))
    make_database(folder / "shop.db")
    gateway = Gateway(folder)
    try:
        run(everything(gateway))
        return wait_for("all to be counted", lambda: counted(gateway))
    finally:
        gateway.kill()
        gateway.reader.join(20)
        server.kill()


def series(text: str) -> set:
    types = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M)
    names = {name + suffix for name, kind in types for suffix in SUFFIXES[kind]}
    assert "groupcast_broker_up" in names
    return names


def test_the_dashboard_shows_what_there_is(known):
    dashboard = json.loads((DEPLOY / "grafana/groupcast.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    expressions += [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    assert len(expressions) > 40
    missing(known[0], expressions)


def test_the_alerts_look_at_what_there_is(known):
    rules = [rule for group in alerts()["groups"] for rule in group["rules"]]
    missing(known[0], [rule["expr"] for rule in rules])
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning", "info") and rule["annotations"]["summary"]
    tested = yaml.safe_load((DEPLOY / "prometheus/alerts_test.yaml").read_text())
    names = {case["alertname"] for test in tested["tests"] for case in test["alert_rule_test"]}
    assert names <= {rule["alert"] for rule in rules}
    # What refuses clients rings.
    assert {"GroupcastMemoryShort", "GroupcastDiskFull", "GroupcastLimited", "GroupcastHookAway"} <= names


def test_every_alert_is_in_the_runbook():
    operations = (DEPLOY.parent / "docs/operations.md").read_text()
    for group in alerts()["groups"]:
        for rule in group["rules"]:
            assert f"`{rule['alert']}`" in operations, f"docs/operations.md does not say what to do at {rule['alert']}"


def test_labels_that_are_asked_for_are_those_that_are_there(known):
    _, text = known
    for series in [
        r'groupcast_http_requests_total\{method="POST",route="/v1/queries/\{name\}",status="200"\}',
        r'groupcast_loop_lag_seconds_bucket\{le="[^"]+",runtime="shard-0"\}',
        r'groupcast_job_pickup_seconds_count\{consumer="queries"\}',
        r'groupcast_job_run_seconds_count\{consumer="queries",outcome="succeeded"\}',
        r'groupcast_query_pool_busy\{source="shop"\}',
    ]:
        assert re.search(f"^{series} ", text, re.M), f"{series} is not in:\n{text}"


def test_prometheus_takes_the_alerts_and_they_ring_when_they_should():
    assert shutil.which("promtool"), "there is no promtool; install the package prometheus"
    for arguments in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run(["promtool", *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_what_a_gateway_tells(known):
    # promtool reads the older text form, whose counters are named with their suffix.
    text = re.sub(r"^# (TYPE|HELP) (\w+?) (counter.*|.*)$", as_old, known[1], flags=re.M).replace("# EOF\n", "")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert "error" not in done.stderr.lower(), done.stderr


async def everything(gateway) -> None:
    """What has to happen once to be counted at all."""
    done = post(f"{gateway.url}/v1/queries/goods", json={}, headers={"Prefer": "wait=20"})
    assert done.json()["state"] == "succeeded", done.text
    async with connect(gateway) as client:
        await client.subscribe("my_group")
        # There is no backend.
        assert post(f"{gateway.url}/v1/groups/my_group/send", json={"type": "call"}).status_code == 202
        await client.message("job.failed")


def counted(gateway):
    text = get(f"{gateway.url}/metrics").text
    return all(f"\ngroupcast_{name}_total{{" in text for name in ("websockets_closed", "backend_requests")) and text


def as_old(line: re.Match) -> str:
    kind, name, rest = line.groups()
    return f"# {kind} {name}_total {rest}" if rest == "counter" else ("" if kind == "HELP" else line.group(0))


def missing(names: set, expressions: list) -> None:
    used = {name for expression in expressions for name in re.findall(r"\bgroupcast_\w+", expression)}
    assert used and not used - names, f"no gateway has {sorted(used - names)}"


def alerts() -> dict:
    return yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())
