"""What clients show in these tests: a key of a service, and tokens of users."""

import time

import jwt

SECRET = "a-secret-of-the-tests-0123456789abcdef0123456789"
KEY = "a-key-of-the-tests-0123456789abcdef0123456789"

# Files beside the configuration, for gateways that are not given an environment.
AUTH = """
[auth]
jwt_secret_file = "jwt.secret"
api_keys_file = "api.keys"
"""

# As the shipped configurations name them.
VARIABLES = {"GROUPCAST_JWT_SECRET": SECRET, "GROUPCAST_API_KEYS": KEY}


def write_to(folder) -> None:
    (folder / "jwt.secret").write_text(SECRET)
    (folder / "api.keys").write_text(KEY)


def token(secret: str = SECRET, **grants) -> str:
    """Of a user who may do everything in groups, or what is said."""
    grants = grants or {"subscribe": ["*"], "send": ["*"], "query": ["*"]}
    return jwt.encode({"sub": "ada", "exp": int(time.time()) + 600} | grants, secret, algorithm="HS256")


def bearer(credential: str) -> dict:
    return {"Authorization": f"Bearer {credential}"}
