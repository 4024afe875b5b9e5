"""Walks through a page of docs/ as its reader does, so that what it says is true.

What a fenced block is stands behind its language:

    ```LANGUAGE NAME      the file NAME; the paragraph or the block above it names it, too
    ```LANGUAGE +NAME     what is added at the end of it; ~NAME: what takes the place of the part that begins with the same line
    ```sh                 commands that end with 0
    ```sh stays           a program that goes on, in a terminal of its own
    ```LANGUAGE prints    what the last commands printed; `…` is anything in a line, and a line of it any number of lines
    ```LANGUAGE appears   lines that come, in time, in some terminal that stays; each in its own line, with `…` as above
    ```LANGUAGE shown     read by nobody

and between blocks, where readers of the page do not see it:

    <!-- stop: COMMAND -->            Ctrl-C in the terminal whose command begins so; a gateway drains and ends with 0
    <!-- kill: COMMAND -->            the end of it, as by a loss of power
    <!-- open: URL -->                the page in a browser, until its socket is subscribed
    <!-- shows: TEXT -->              what stands on the page that was opened last
    <!-- until: COMMAND -->           commands that are repeated until they succeed
"""

import os
import re
import signal
import socket
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx
from brokers import free_port
from conftest import DEADLINE, binary, wait_for
from fleet import in_venv

ROOT = Path(__file__).parents[2]
BROWSER = ROOT / "tests/browser/page.mjs"
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$|^<!-- (\w+): (.*?) -->$", re.MULTILINE | re.DOTALL)
# Of what is the reader's own machine only the folder is another.
TO_BUILD = "cargo run --release -- "


@dataclass
class Step:
    line: int
    kind: str
    body: str
    above: str


def steps(text: str) -> list[Step]:
    found = []
    for match in FENCE.finditer(text):
        language, what, body, remark, said = match.groups()
        above = text[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
        line = text.count("\n", 0, match.start()) + 1
        if remark:
            found.append(Step(line, remark, said, above))
        else:
            found.append(Step(line, what or ("run" if language == "sh" else "shown"), body, above))
    return found


class Terminal:
    """A program that stays, and what it has said."""

    def __init__(self, command: str, folder: Path, env: dict, log: Path):
        self.command, self.log = command, log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def await_(self, what: str, look):
        def seen():
            assert self.process.poll() is None, f"`{self.command}` ended while waiting for {what}:\n{self.said}"
            return look()

        try:
            return wait_for(what, seen)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said}") from None

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)
        ended = self.process.wait(2 * DEADLINE)
        # Clients are simply interrupted; a gateway ends by itself.
        assert ended == 0 or ended in (-signal.SIGINT, 130) and "groupcast listens" not in self.said, self.said

    def kill(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # It has ended, and so has everything that it started.
        self.process.wait(DEADLINE)


class Walk:
    """`ports` are those of the page; each is another, free one here. `choose` may change a file or command before it is used."""

    def __init__(self, page: str, folder: Path, ports: list[int], env: dict | None = None, choose=lambda text: text):
        self.page, self.choose = ROOT / "docs" / page, choose
        self.ports = {str(port): str(free_port()) for port in ports}
        self.logs, self.cwd = folder / "logs", folder / "home"
        self.logs.mkdir()
        self.cwd.mkdir()
        (folder / "bin").mkdir()
        (folder / "bin/groupcast").symlink_to(binary())
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("GROUPCAST_", "DJANGO_", "LAYER"))}
        self.env |= {
            "PATH": f"{folder}/bin:{in_venv('python').parent}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_PROXY": "*",
        } | (env or {})
        self.terminals: list[Terminal] = []
        self.printed, self.browsed = "", None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for terminal in reversed(self.terminals):
            terminal.kill()
        for terminal in self.terminals:
            assert "panicked at" not in terminal.said, terminal.said

    def go(self, until: str | None = None, beginning: str | None = None) -> None:
        """From the heading that begins so to the one that does, without them to the ends of the page."""
        text = self.page.read_text()
        first = heading(text, beginning) if beginning else 0
        last = heading(text, until) if until else len(text)
        for step in steps(text[:last]):
            if step.line > text.count("\n", 0, first):
                self.take(step)

    def take(self, step: Step) -> None:
        actions = {
            "run": self.run, "stays": self.stay, "prints": self.prints, "appears": self.appears, "shown": lambda _: None,
            "stop": lambda said: self.terminal(said).stop(), "kill": lambda said: self.terminal(said).kill(),
            "open": self.open, "shows": self.shows, "until": self.until,
        }  # fmt: skip
        body = self.here(self.choose(step.body))
        try:
            if step.kind in actions:
                actions[step.kind](body)
            else:
                name = step.kind.lstrip("+~")
                assert f"`{name}`" in step.above, f"the lines above do not name `{name}`"
                self.write(step.kind.removesuffix(name), self.cwd / name, body)
        except Exception as error:
            error.add_note(f"at {self.page.name}, line {step.line}")
            raise

    def here(self, text: str) -> str:
        for documented, real in self.ports.items():
            text = re.sub(rf"\b{documented}\b", real, text)
        return text

    def write(self, how: str, path: Path, body: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if how == "+":
            body = path.read_text() + body
        elif how == "~":
            sections, title = path.read_text().split("\n\n"), body.split("\n")[0]
            (at,) = (at for at, section in enumerate(sections) if section.startswith(title))
            sections[at] = body.rstrip()
            body = "\n\n".join(sections)
        path.write_text(body)

    def run(self, commands: str) -> None:
        commands = "\n".join(line for line in commands.splitlines() if not self.is_done(line))
        done = self.bash(commands)
        assert done.returncode == 0, f"{commands}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        self.printed = done.stdout

    def is_done(self, line: str) -> bool:
        """Whether a line is of the reader's machine alone: what it makes is here already."""
        if match := re.fullmatch(r"python3 -m pip install (.+?)(?:\s+#.*)?", line):
            for package in match.group(1).split():
                assert version(re.sub(r"\[.*", "", package)), package
            return True
        return bool(re.match(r"python3 -m venv|\. \.?venv/bin/activate|cargo build --release|export PATH=", line))

    def bash(self, commands: str) -> subprocess.CompletedProcess:
        """What one types stays: the folder, and what is exported."""
        after = self.logs / "after"
        script = f"set -euo pipefail\n{commands}\npwd >{after}\nenv -0 >>{after}\n"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.cwd, env=self.env, capture_output=True, text=True, timeout=120
        )
        if done.returncode == 0:
            folder, _, env = after.read_text().partition("\n")
            self.cwd = Path(folder)
            self.env = dict(entry.split("=", 1) for entry in env.split("\0") if "=" in entry)
        return done

    def until(self, commands: str) -> None:
        wait_for(f"`{commands}` to succeed", lambda: self.bash(commands).returncode == 0)

    def stay(self, command: str) -> None:
        command = command.strip()
        if command.startswith(TO_BUILD):
            command = "groupcast " + command.removeprefix(TO_BUILD)
        log = self.logs / f"{len(self.terminals)}.log"
        terminal = Terminal(command, self.cwd, self.env, log)
        self.terminals.append(terminal)
        terminal.await_(f"`{command}` to be there", lambda: self.is_there(terminal))

    def is_there(self, terminal: Terminal) -> bool:
        command = terminal.command
        if "groupcast subscribe" in command:
            return "subscribed to" in terminal.said
        if match := re.search(r"http://(127\.0\.0\.1:\d+)", terminal.said) if "groupcast" in command else None:
            return is_ready(f"http://{match.group(1)}/readyz")
        if "groupcast" in command:
            return False
        port = re.search(r"\b(\d{4,5})\b", command)
        return port is None or listens(int(port.group(1)))

    def terminal(self, command: str) -> Terminal:
        """The newest that was begun so and is still there."""
        running = [each for each in self.terminals if each.process.poll() is None]
        return next(each for each in reversed(running) if each.command.startswith(command))

    def prints(self, expected: str) -> None:
        lines = [squeezed(line) for line in self.printed.strip().splitlines()]
        wanted = "".join(r"(?:.*\n)*" if line == "…" else pattern(line).pattern + r"\n" for line in expected.strip().splitlines())
        assert re.fullmatch(wanted, "\n".join(lines) + "\n"), f"printed:\n{self.printed}\nexpected:\n{expected}"

    def appears(self, expected: str) -> None:
        for line in expected.strip().splitlines():
            wanted = pattern(line)
            try:
                wait_for(f"the line {line}", lambda: any(wanted.search(squeezed(said)) for said in self.lines()))
            except AssertionError as error:
                said = "\n".join(f"--- {each.command}\n{each.said}" for each in self.terminals)
                raise AssertionError(f"{error}\n{said}") from None

    def lines(self):
        return (line for terminal in self.terminals for line in terminal.said.splitlines())

    def open(self, url: str) -> None:
        log = self.logs / f"{len(self.terminals)}.log"
        self.browsed = Terminal(f"exec node {BROWSER} {url}", self.cwd, self.env, log)
        self.terminals.append(self.browsed)
        self.browsed.await_("the page to be subscribed", lambda: '"type":"subscribed"' in self.browsed.said)

    def shows(self, text: str) -> None:
        wanted = pattern(text)
        self.browsed.await_(f"the page to show {text}", lambda: wanted.search(squeezed(self.browsed.said)))


def heading(text: str, beginning: str) -> int:
    return re.search(rf"^#+ {re.escape(beginning)}", text, re.MULTILINE).start()


def pattern(text: str) -> re.Pattern:
    return re.compile(".*?".join(re.escape(part) for part in squeezed(text).split("…")))


def squeezed(text: str) -> str:
    return " ".join(text.split())


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=DEADLINE).status_code == 200
    except httpx.TransportError:
        return False


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False
