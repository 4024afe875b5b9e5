"""What stands beside the gateway: the project of Django Channels in tests/django, and its worker."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
from brokers import free_port
from conftest import DEADLINE, wait_for

PROJECT = Path(__file__).parents[1] / "django"


class Program:
    """A process whose output is kept in a file."""

    def __init__(self, command: list, folder: Path, env: dict | None = None, cwd: Path | None = None):
        self.log = folder / f"{Path(command[0]).name}-{free_port()}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=cwd or folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def await_(self, what: str, look):
        def seen():
            assert self.process.poll() is None, f"it ended while waiting for {what}:\n{self.log.read_text()}"
            return look()

        return wait_for(what, seen)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)


class Django(Program):
    """The project in tests/django, under daphne or uvicorn. LAYER="core" and others are the settings of its docstring."""

    def __init__(self, folder: Path, server: str = "daphne", **layer: str):
        self.folder = folder
        self.env = project_env(folder, **layer)
        self.port = free_port()
        self.url, self.ws = (f"{scheme}://127.0.0.1:{self.port}" for scheme in ("http", "ws"))
        shutil.copy(migrated(), self.env["DATABASE"])
        command = {
            "daphne": [in_venv("daphne"), "-b", "127.0.0.1", "-p", self.port, "project.asgi:application"],
            "uvicorn": [in_venv("uvicorn"), "--host", "127.0.0.1", "--port", self.port, "project.asgi:application"],
        }[server]
        super().__init__(command, folder, self.env, PROJECT)
        self.await_("Django to answer", lambda: self.answers())

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=DEADLINE, trust_env=False)

    def post(self, path: str, **body) -> httpx.Response:
        return httpx.post(self.url + path, timeout=DEADLINE, trust_env=False, **body)

    def add_user(self, name: str, password: str) -> None:
        env = self.env | {"DJANGO_SUPERUSER_PASSWORD": password}
        manage(env, "createsuperuser", "--noinput", "--username", name, "--email", "nobody@example.org")

    def invite(self, name: str, group: str) -> None:
        """Puts a user into one of Django's own groups."""
        lines = f"""
from django.contrib.auth.models import Group, User
User.objects.get(username={name!r}).groups.add(Group.objects.get_or_create(name={group!r})[0])
"""
        manage(self.env, "shell", "-c", lines)

    def answers(self) -> bool:
        try:
            return self.get("/whoami/").status_code == 200
        except httpx.TransportError:
            return False


class Worker(Program):
    """`manage.py runworker`."""

    def __init__(self, folder: Path, *channels: str, **layer: str):
        command = [sys.executable, "manage.py", "runworker", *channels]
        super().__init__(command, folder, project_env(folder, **layer), PROJECT)


def project_env(folder: Path, **layer: str) -> dict:
    # Python does not keep what it has printed.
    own = {"DATABASE": str(folder / "db.sqlite3"), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("LAYER", "DJANGO_", "GROUPCAST_"))}
    return outside | own | layer


@functools.cache
def migrated() -> Path:
    """A database with its tables, made once: that takes longer than all else together."""
    folder = Path(tempfile.mkdtemp(prefix="groupcast-django-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    manage(project_env(folder), "migrate", "-v0")
    return folder / "db.sqlite3"


def manage(env: dict, *arguments: str) -> None:
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def in_venv(program: str) -> Path:
    return Path(sys.executable).with_name(program)
