"""The unit of deploy/systemd: systemd understands it, it is locked up well, and a gateway needs nothing that it forbids."""

import functools
import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from brokers import free_port
from client import connect, run
from conftest import CONFIG, DEADLINE, binary, make_database, wait_for
from credentials import bearer
from limits import limits, seconds
from servers import DEPLOY, ROOT, get, post, replace_once

UNIT = DEPLOY / "systemd/groupcast.service"
# Of 100; 14 is what systemd 252 gives. What is left is that it speaks to the network.
EXPOSURE_MAX = 15


def test_systemd_understands_it(tmp_path):
    copy = tmp_path / "groupcast.service"
    text = UNIT.read_text().replace("/usr/local/bin/groupcast", binary())
    copy.write_text(text)
    done = systemd("verify", copy)
    assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr
    copy.write_text(text.replace("RestrictRealtime", "RestrictRealtme"))
    assert "RestrictRealtme" in systemd("verify", copy).stderr


def test_it_is_locked_up(tmp_path):
    done = systemd("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", UNIT)
    assert done.returncode == 0, done.stdout
    open_one = tmp_path / "open.service"
    open_one.write_text("[Service]\nExecStart=/bin/true\n")
    assert systemd("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", open_one).returncode != 0


def test_its_steps_lead_to_a_gateway_that_is_ready(tmp_path):
    """Those of the unit's comment, in a folder in place of / and without systemd, which starts what ExecStart says."""
    steps = re.findall(r"^#   (.+)$", UNIT.read_text(), re.M)
    own = [step for step in steps if not step.startswith(("systemctl", "groupcast health"))]
    assert steps[-3:] == ["systemctl daemon-reload", "systemctl enable --now groupcast", "groupcast health"]
    assert own == steps[:-3] and len(own) == 7
    root, ports = tmp_path / "root", {8000: free_port(), 9000: free_port()}
    env = {k: v for k, v in os.environ.items() if not k.startswith("GROUPCAST_")} | {"PATH": f"{root}/usr/local/bin:{os.environ['PATH']}"}
    for step in own:
        here = re.sub(r"(?<![\w/])/(etc|usr)/", rf"{root}/\1/", step).replace("target/release/groupcast", binary())
        done = subprocess.run(["sh", "-euc", here], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{step}: {done.stdout}{done.stderr}"
        if "groupcast check" in step:
            assert "fine" in done.stdout, done.stdout
    secrets = root / "etc/groupcast/secrets"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    started = as_systemd_starts_it(root, env)
    for number, port in ports.items():
        # The ports of the machine may be somebody else's; that the unit lets the real ones be is asked elsewhere.
        config = root / "etc/groupcast/groupcast.toml"
        config.write_text(replace_once(config.read_text(), f'"127.0.0.1:{number}"', f'"127.0.0.1:{port}"'))
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(**started, stdout=log, stderr=log)
    log.close()
    try:
        url, ops = (f"http://127.0.0.1:{port}" for port in ports.values())
        wait_for("the gateway to be ready", lambda: answers(url, process, tmp_path / "log"))
        health = subprocess.run(["groupcast", "health", "--url", url], env=env, capture_output=True, text=True, timeout=60)
        assert health.returncode == 0, health.stderr
        key = started["env"]["GROUPCAST_API_KEYS"]
        sent = {"json": {"type": "chat"}}
        assert post(f"{url}/v1/groups/room.1/send", **sent).status_code == 401
        assert post(f"{url}/v1/groups/room.1/send", **sent, headers=bearer(key)).status_code == 202
        assert "groupcast_connections 0" in get(f"{ops}/metrics").text
        process.terminate()
        assert process.wait(DEADLINE * 2) == 0, (tmp_path / "log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(DEADLINE)


def test_the_unit_lets_be_listened_where_the_configuration_says():
    server = tomllib.loads((DEPLOY / "systemd/groupcast.toml").read_text())["server"]
    allowed = set(re.findall(r"^SocketBindAllow=tcp:(\d+)$", UNIT.read_text(), re.M))
    assert allowed == {server[key].split(":")[1] for key in ("listen", "ops_listen")}


def test_it_waits_for_the_drain():
    assert seconds(setting("TimeoutStopSec") + "s") > limits()["drain_timeout"]
    assert "2" in setting("RestartPreventExitStatus")


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """What a gateway asks of the kernel from its start to the end of a drain, with sockets, queries and reports between."""
    folder = tmp_path_factory.mktemp("systemd")
    report = CONFIG + '\n[[consumer]]\nname = "reports"\ngroup = "my_group"\ntype = "generate_report"\nrun = "report"\n'
    (folder / "groupcast.toml").write_text(report)
    make_database(folder / "shop.db")
    port = free_port()
    trace, log = folder / "trace", (folder / "log").open("w")
    serve = [binary(), "serve", "--config", folder / "groupcast.toml", "--listen", f"127.0.0.1:{port}"]
    command = ["strace", "--follow-forks", "--quiet=all", "--output", trace, *serve]
    env = {k: v for k, v in os.environ.items() if not k.startswith("GROUPCAST_")}
    env["GROUPCAST_SERVER__DATA_DIR"] = str(folder / "data")
    process = subprocess.Popen([str(word) for word in command], cwd="/", env=env, stdout=log, stderr=log)
    log.close()
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for("the gateway to be ready", lambda: answers(url, process, folder / "log"))
        run(everything(url, f"ws://127.0.0.1:{port}/ws"))
        # strace passes no signals on; its child is the gateway.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), 15)
        assert process.wait(DEADLINE * 2) == 0, (folder / "log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(DEADLINE)
    return folder, trace.read_text().splitlines()


async def everything(url: str, ws: str) -> None:
    async with connect(SimpleNamespace(ws=ws)) as client:
        await client.subscribe("my_group")
        for work in ({"type": "execute_query", "queryset_id": 7}, {"type": "generate_report", "queryset_id": 7}):
            assert post(f"{url}/v1/groups/my_group/send", json=work).status_code == 202
            await client.message("job.result")
        assert get(f"{url}/metrics").status_code == 200


def test_a_gateway_makes_no_call_that_the_unit_forbids(calls):
    _, lines = calls
    made = {found.group(1) for line in lines if (found := re.match(r"\d+ +(\w+)\(", line))}
    assert {"openat", "accept4", "exit_group"} <= made and made & {"fsync", "fdatasync"}, made
    forbidden = made - allowed()
    if os.geteuid() == 0:
        # SQLite gives its files to the owner of the database when it is root, which it is not in the unit.
        forbidden -= {"fchown"}
    assert not forbidden, f"SystemCallFilter forbids what a gateway does: {forbidden}"
    assert "mount" not in allowed() and "ptrace" not in allowed() and "bpf" not in allowed()


def test_a_gateway_makes_no_code_and_speaks_only_the_families_that_the_unit_allows(calls):
    _, lines = calls
    # Up to here the loader of programs is at work, which the filter does not see.
    both = [line for line in lines if "PROT_WRITE|PROT_EXEC" in line or re.search(r" mprotect\(.*PROT_EXEC", line)]
    assert not both, both[:3]
    families = {found.group(1) for line in lines if (found := re.search(r" socket\((AF_\w+)", line))}
    assert families <= set(setting("RestrictAddressFamilies").split()) and "AF_INET" in families, families


def test_a_gateway_writes_only_into_its_own_folder(calls):
    folder, lines = calls
    written = set()
    for line in lines:
        found = re.search(r" openat?\(.*?\"([^\"]+)\", (O_\w[\w|]*)", line)
        if found and re.search("O_WRONLY|O_RDWR|O_CREAT", found.group(2)) and "= -1" not in line:
            written.add(found.group(1))
    assert any(path.startswith(f"{folder}/data/") for path in written), written
    elsewhere = {path for path in written if not path.startswith((f"{folder}/data/", "/dev/null"))}
    # The source is opened read-only by SQLite's authorizer, and by its flags.
    assert not elsewhere, elsewhere
    # ProcSubset=pid leaves a process what is about itself.
    read = {found.group(1) for line in lines if (found := re.search(r"\"(/proc/[^\"]+)\"", line)) and "= -1" not in line}
    others = {path for path in read if not re.match(r"/proc/(self|thread-self|\d+)(/|$)", path)}
    # The C library looks at it when it gives memory back, and does without.
    assert others <= {"/proc/sys/vm/overcommit_memory"}, others


def as_systemd_starts_it(root: Path, env: dict) -> dict:
    """What the unit says of the process, below another root."""

    def below(path: str) -> str:
        assert path.startswith("/"), path
        return f"{root}{path}"

    variables = dict([setting("Environment").split("=", 1)])
    variables["GROUPCAST_SERVER__DATA_DIR"] = below(variables["GROUPCAST_SERVER__DATA_DIR"])
    # Without a dash in front of the file, systemd starts nothing when it is not there.
    for line in Path(below(setting("EnvironmentFile"))).read_text().splitlines():
        variables |= dict([line.split("=", 1)])
    folder = Path(below(f"/var/lib/{setting('StateDirectory')}"))
    folder.mkdir(parents=True, mode=int(setting("StateDirectoryMode"), 8))
    assert str(folder) == below(setting("WorkingDirectory"))
    command = [below(word) if word.startswith("/") else word for word in setting("ExecStart").split()]
    return {"args": command, "cwd": folder, "env": env | variables}


def setting(name: str) -> str:
    return re.search(rf"^{name}=(.*)$", UNIT.read_text(), re.M).group(1)


def allowed() -> set:
    """What the unit's filter lets through: sets are added, those with ~ taken away."""
    calls: set = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.M):
        named = set().union(*(members(word) for word in line.removeprefix("~").split()))
        calls = calls - named if line.startswith("~") else calls | named
    # systemd always allows what a process needs to begin and to end.
    return calls | members("@default")


@functools.cache
def members(name: str) -> frozenset:
    if not name.startswith("@"):
        return frozenset([name])
    done = systemd("syscall-filter", name)
    assert done.returncode == 0, done.stderr
    words = [line.strip() for line in done.stdout.splitlines()[1:]]
    return frozenset().union(*(members(word) for word in words if word and not word.startswith("#")))


def systemd(*arguments) -> subprocess.CompletedProcess:
    assert shutil.which("systemd-analyze"), "there is no systemd-analyze; install the package systemd"
    command = ["systemd-analyze", *map(str, arguments)]
    env = os.environ | {"SYSTEMD_PAGER": "cat", "NO_COLOR": "1", "SYSTEMD_COLORS": "0"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def answers(url: str, process, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return get(f"{url}/readyz").status_code == 200
    except Exception as error:  # httpx wraps what the system says
        assert "Connect" in type(error).__name__, error
        return False
