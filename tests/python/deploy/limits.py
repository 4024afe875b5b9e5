"""What the gateway's own defaults are, asked of the gateway."""

import functools
import os
import subprocess
import tomllib

from conftest import binary

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


@functools.cache
def printed() -> dict:
    """All settings with their defaults."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GROUPCAST_")}
    done = subprocess.run([binary(), "check", "--print"], cwd="/", env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return tomllib.loads(done.stdout)


def limits() -> dict:
    """`[limits]`, durations in seconds."""
    return {key: seconds(value) if key.endswith(("timeout", "interval")) else value for key, value in printed()["limits"].items()}


def seconds(text: str) -> float:
    number = text.rstrip("msh;d")
    return float(number) * UNITS[text.removeprefix(number).rstrip(";")]
