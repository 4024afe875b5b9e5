"""Tokens as PyJWT makes them and as an issuer signs them, whose keys the gateway reads at an address."""

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import jwt
import pytest
import websockets
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from client import DEADLINE, run
from conftest import CONFIG, Gateway, make_database, wait_for

SECRET = "a secret of the tests, long enough for each of the three: " + "0123456789abcdef" * 2
KEY = "a-key-of-the-tests-0123456789abcdef0123456789"
ISSUER, AUDIENCE = "https://issuer.example", "gateway"

KINDS = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


class Issuer:
    """Publishes a set of keys and counts how often it is read; what it answers can be broken for a number of readings."""

    def __init__(self):
        self.keys: list[dict] = []
        self.reads = 0
        self.broken: int | None = None
        self.broken_until = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.reads += 1
                body = json.dumps({"keys": issuer.keys}).encode()
                if issuer.broken and issuer.broken_until and issuer.reads > issuer.broken_until:
                    issuer.broken = None
                self.send_response(issuer.broken or 200)
                self.send_header("location", issuer.url)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/keys"

    def publish(self, **private_keys) -> None:
        self.keys = [public_jwk(kid, key) for kid, key in private_keys.items()]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def public_jwk(kid: str, private_key) -> dict:
    algorithm = jwt.get_algorithm_by_name(algorithm_of(private_key))
    return {**algorithm.to_jwk(private_key.public_key(), as_dict=True), "kid": kid, "use": "sig"}


def algorithm_of(private_key) -> str:
    kinds = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256", ed25519.Ed25519PrivateKey: "EdDSA"}
    return next(name for kind, name in kinds.items() if isinstance(private_key, kind))


def claims(**more) -> dict:
    return {"sub": "alice", "exp": time.time() + 600, "iss": ISSUER, "aud": AUDIENCE, "send": ["room.*"], **more}


def signed(private_key, kid: str | None, jku: str | None = None, **more) -> str:
    headers = {name: value for name, value in [("kid", kid), ("jku", jku)] if value}
    return jwt.encode(claims(**more), private_key, algorithm=algorithm_of(private_key), headers=headers)


@pytest.fixture
def start(tmp_path):
    running = []

    def start(auth: str) -> Gateway:
        (tmp_path / "groupcast.toml").write_text(f"{CONFIG}\n[auth]\n{auth}\n")
        (tmp_path / "secret").write_text(SECRET)
        (tmp_path / "keys").write_text(KEY)
        make_database(tmp_path / "shop.db")
        running.append(Gateway(tmp_path))
        return running[-1]

    yield start
    for gateway in running:
        gateway.kill()
        assert not [line for line in gateway.lines if "panicked at" in line]


@pytest.fixture
def issuer():
    issuer = Issuer()
    yield issuer
    issuer.close()


def send(gateway: Gateway, token: str | None, group: str = "room.1") -> int:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    url = f"{gateway.url}/v1/groups/{group}/send"
    return httpx.post(url, json={"type": "chat"}, headers=headers, timeout=DEADLINE, trust_env=False).status_code


def test_a_token_of_pyjwt_opens_http_and_a_socket(start):
    gateway = start('jwt_secret_file = "secret"\napi_keys_file = "keys"')
    grants = {"sub": "alice", "exp": int(time.time()) + 600, "subscribe": ["room.*"], "send": ["room.1"]}
    token = jwt.encode(grants, SECRET, algorithm="HS256")
    assert [send(gateway, token), send(gateway, token, "room.2"), send(gateway, None), send(gateway, KEY)] == [202, 403, 401, 202]
    for algorithm in ["HS384", "HS512"]:
        assert send(gateway, jwt.encode(grants, SECRET, algorithm=algorithm)) == 401
    assert send(gateway, jwt.encode(grants, None, algorithm="none")) == 401
    assert send(gateway, jwt.encode(grants, "x" * 64, algorithm="HS256")) == 401
    assert send(gateway, jwt.encode({**grants, "exp": int(time.time()) - 1}, SECRET, algorithm="HS256")) == 401

    async def story():
        protocols = ["groupcast.v1", f"groupcast.token.{token}"]
        async with websockets.connect(gateway.ws + "?group=room.1", subprotocols=protocols, proxy=None) as socket:
            assert socket.subprotocol == "groupcast.v1"
            assert json.loads(await socket.recv())["user"] == "alice"
            assert json.loads(await socket.recv())["type"] == "subscribed"
            assert send(gateway, token) == 202
            assert json.loads(await socket.recv())["message"] == {"type": "chat"}

    run(story())


def test_keys_of_an_issuer_are_read_and_changed(start, issuer):
    keys = {name: make() for name, make in KINDS.items()}
    issuer.publish(**keys)
    gateway = start(f'jwks_url = "{issuer.url}"\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\njwks_interval = "1s"')
    for name, key in keys.items():
        assert send(gateway, signed(key, name)) == 202, name
        assert send(gateway, signed(key, None)) == 202, f"{name} without a kid"
        assert send(gateway, signed(key, name, aud="somebody else")) == 401
        assert send(gateway, signed(key, name, iss="https://other.example")) == 401
        assert send(gateway, signed(KINDS[name](), name)) == 401, "another key by the same name"
    # What was a public key is no secret.
    public = keys["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert send(gateway, hmac_signed(public)) == 401

    fresh = KINDS["ES256"]()
    issuer.publish(fresh=fresh)
    wait_for("the new key to be read", lambda: send(gateway, signed(fresh, "fresh")) == 202)
    assert send(gateway, signed(keys["RS256"], "RS256")) in (401, 503), "withdrawn"

    issuer.broken = 500
    seen = issuer.reads
    wait_for("the issuer to be asked in vain", lambda: issuer.reads > seen + 1)
    assert send(gateway, signed(fresh, "fresh")) == 202, "what was there is kept"


def test_made_up_keys_do_not_become_a_load_on_the_issuer(start, issuer):
    key = KINDS["EdDSA"]()
    issuer.publish(k=key)
    gateway = start(f'jwks_url = "{issuer.url}"\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\njwks_interval = "1h"')
    assert send(gateway, signed(key, "k")) == 202
    before = issuer.reads
    for n in range(50):
        assert send(gateway, signed(key, f"made-up-{n}", jku=issuer.url)) in (401, 503)
    assert issuer.reads <= before + 1


def test_a_gateway_without_its_issuers_keys_is_not_ready_and_follows_no_redirect(start, issuer):
    key = KINDS["RS256"]()
    issuer.publish(k=key)
    issuer.broken, issuer.broken_until = 302, 2
    # Ready when this returns: the third answer is the first that has keys.
    gateway = start(f'jwks_url = "{issuer.url}"\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\njwks_interval = "1s"')
    assert issuer.reads > issuer.broken_until
    assert send(gateway, signed(key, "k")) == 202


def hmac_signed(secret: bytes) -> str:
    """As PyJWT would, which refuses such secrets."""
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    text = part(json.dumps({"alg": "HS256", "kid": "RS256"}).encode()) + "." + part(json.dumps(claims()).encode())
    return text + "." + part(hmac.new(secret, text.encode(), hashlib.sha256).digest())
