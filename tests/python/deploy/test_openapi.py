"""What `/openapi.json` says is held against a running gateway: schemathesis asks for all that may be asked, and for what may not."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from conftest import CONFIG, Gateway, make_database

KEY = "0123456789abcdef0123456789abcdef"
AUTH = """
[auth]
api_keys_file = "api.keys"
"""
# A long-poll shall not keep a test that has a bound in time.
LIMITS = """
[limits]
wait_timeout = "500ms"
"""
GROUP = """
[[group]]
name = "room.*"
history = { messages = 10, age = "1h" }
presence = true
"""
# Nothing is a 500, and status, type, fields and form of every answer are among those that are described. That all which is
# described is also taken is not asked: a description cannot say what the name of a query is, or that a time has passed.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "missing_required_header",
]
SEED = 7


@pytest.mark.parametrize(
    ("auth", "headers", "seconds"),
    [("", [], 40), (AUTH, ["Authorization: Bearer " + KEY], 20), (AUTH, [], 10)],
    ids=["open", "service", "nobody"],
)
def test_every_answer_is_one_that_is_described(tmp_path, auth, headers, seconds):
    (tmp_path / "groupcast.toml").write_text(CONFIG + LIMITS + GROUP + auth)
    (tmp_path / "api.keys").write_text(KEY)
    make_database(tmp_path / "shop.db")
    gateway = Gateway(tmp_path)
    try:
        done = asked(gateway, headers, seconds)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr
        # A run that asked nothing has shown nothing.
        assert "Tested: 0" not in done.stdout and "Tested: " in done.stdout, done.stdout[-2000:]
        assert httpx.get(f"{gateway.url}/healthz", trust_env=False).status_code == 200
    finally:
        assert gateway.stop() == 0
        gateway.reader.join(20)
    assert not any("panicked at" in line for line in gateway.lines)


def asked(gateway: Gateway, headers: list[str], seconds: int) -> subprocess.CompletedProcess:
    program = Path(sys.executable).with_name("st")
    command = [program, "run", f"{gateway.url}/openapi.json", "--checks", ",".join(CHECKS), "--continue-on-failure"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-time", str(seconds), "--seed", str(SEED)]
    # A stream has no end.
    command += ["--exclude-path", "/v1/events", "--request-timeout", "20", "--no-color", "--warnings", "off"]
    for header in headers:
        command += ["--header", header]
    return subprocess.run(command, cwd=gateway.folder, capture_output=True, text=True, timeout=seconds * 3 + 60)
