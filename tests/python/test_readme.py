"""README.md: what it has the newcomer type, and the configuration that it shows."""

import re
import sqlite3
import subprocess

from conftest import binary
from pages import ROOT, Walk


def test_the_first_commands_are_true(tmp_path):
    with Walk("../README.md", tmp_path, [8000]) as walk:
        gateway = f"127.0.0.1:{walk.ports['8000']}"
        walk.env |= {"GROUPCAST_URL": f"http://{gateway}", "GROUPCAST_SERVER__LISTEN": gateway}
        walk.go(until="Where to read on")


def test_what_it_shows_of_the_configuration_fits_together(tmp_path):
    blocks = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    # As the page says elsewhere: with a broker the file of jobs is one gateway's own.
    (tmp_path / "groupcast.toml").write_text("\n".join([*blocks, "[jobs]\nsingle_gateway = true\n"]))
    (tmp_path / "groupcast-data").mkdir()
    with sqlite3.connect(tmp_path / "groupcast-data/demo.db") as database:
        database.execute("create table flights (origin text, dest text, arr_delay real)")
    database.close()
    env = {"PATH": "/usr/bin", "APP_JWT_SECRET": "s" * 32, "APP_API_KEYS": "k" * 32}
    done = subprocess.run([binary(), "check"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine: 1 queries, 1 consumers, listening on 0.0.0.0:8000\n"
