"""What stands around a gateway in deploy/: PostgreSQL, nginx and Caddy, on free ports, ended by their process ids."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import httpx
from brokers import free_port
from conftest import DEADLINE, wait_for

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"


class Server:
    """A process that listens, and whose output is kept in a file."""

    def __init__(self, command: list, folder: Path, port: int, **how):
        self.log = folder / f"{Path(command[0]).name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **how
            )
        wait_for(f"{command[0]} to listen", lambda: self._listens(port))

    def _listens(self, port: int) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(DEADLINE)


class Postgres(Server):
    """A server of its own. It refuses to be root, so it runs as the user that the package made."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="groupcast-postgres-"))
        shutil.chown(self.folder, "postgres")
        self.port = free_port()
        self.as_user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        command = [program("initdb"), "--pgdata=data", "--username=groupcast", "--auth=trust", "--encoding=UTF8"]
        made = [*command, "--no-locale", "--no-sync", "--no-instructions"]
        subprocess.run(made, cwd=self.folder, check=True, capture_output=True, timeout=60, **self.as_user)
        sockets = f"-c unix_socket_directories={self.folder}"
        options = ["-D", "data", "-p", self.port, "-c", "listen_addresses=127.0.0.1", *sockets.split()]
        super().__init__([program("postgres"), *options], self.folder, self.port, **self.as_user)
        # It listens before it answers.
        asked = [program("pg_isready"), "--host=127.0.0.1", f"--port={self.port}"]
        wait_for("PostgreSQL to be ready", lambda: subprocess.run(asked, capture_output=True).returncode == 0)

    @property
    def url(self) -> str:
        return f"postgres://groupcast@127.0.0.1:{self.port}/postgres"

    def end(self) -> None:
        # SIGINT: do not wait for those that are connected.
        if self.process.poll() is None:
            self.process.send_signal(2)
        self.process.wait(DEADLINE)
        shutil.rmtree(self.folder)


class Nginx(Server):
    """nginx with the files of deploy/nginx, whose ports are others."""

    def __init__(self, folder: Path, upstream: str, ports: dict[int, int], change=lambda text: text):
        folder.mkdir()
        self.public, self.services = free_port(), free_port()
        conf = change((DEPLOY / "nginx/groupcast.conf").read_text())
        conf = replace_once(conf, "listen 8080;", f"listen 127.0.0.1:{self.public};")
        conf = replace_once(conf, "listen 8081;", f"listen 127.0.0.1:{self.services};")
        servers = (DEPLOY / upstream).read_text()
        for documented, real in ports.items():
            servers = replace_once(servers, f"127.0.0.1:{documented}", f"127.0.0.1:{real}")
        (folder / "groupcast.conf").write_text(conf)
        (folder / "upstream.conf").write_text(servers)
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in NGINX_TEMPORARY)
        (folder / "nginx.conf").write_text(
            f"{'user root;' if os.geteuid() == 0 else ''}\ndaemon off;\npid {folder}/pid;\nerror_log stderr;\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{temporary}include {folder}/upstream.conf;\n"
            f"include {folder}/groupcast.conf;\n}}\n"
        )
        command = ["nginx", "-p", folder, "-c", folder / "nginx.conf"]
        tested = subprocess.run([*map(str, command), "-t"], capture_output=True, text=True)
        assert tested.returncode == 0 and "[warn]" not in tested.stderr, tested.stderr
        super().__init__(command, folder, self.public)


NGINX_TEMPORARY = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]


class Caddy(Server):
    """Caddy with deploy/Caddyfile, whose names and ports come from the environment."""

    def __init__(self, folder: Path, gateways: str, change=lambda text: text):
        folder.mkdir()
        self.public, self.services = free_port(), free_port()
        (folder / "Caddyfile").write_text(change((DEPLOY / "Caddyfile").read_text()))
        names = {"SITE": f"http://127.0.0.1:{self.public}", "SERVICES": f"127.0.0.1:{self.services}"}
        env = os.environ | names | {"GATEWAYS": gateways, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
        command = ["caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
        super().__init__(command, folder, self.public, env=env)

    def end(self) -> None:
        # It would wait for connections that clients keep open.
        self.process.kill()
        self.process.wait(DEADLINE)


def replace_once(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    return text.replace(old, new)


def program(name: str) -> str:
    """One of PostgreSQL's, which Debian keeps out of the path."""
    found = shutil.which(name) or next((str(p) for p in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    assert found, f"there is no {name}; install the package postgresql"
    return found


def get(url: str, **how) -> httpx.Response:
    return httpx.get(url, timeout=DEADLINE, trust_env=False, **how)


def post(url: str, **how) -> httpx.Response:
    return httpx.post(url, timeout=DEADLINE, trust_env=False, **how)
