"""What the stories of Django Channels and gateways have in common, whatever is between them."""

import json

import django
import httpx
from asgiref.sync import async_to_sync
from channels.layers import channel_layers, get_channel_layer
from conftest import CONFIG, Gateway, make_database
from django.conf import settings
from django.http import HttpResponse

if not settings.configured:
    settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="for tests", CHANNEL_LAYERS={})
    django.setup()


# The code that it is all about, as it stands in a Django project.
def start_query(request, id):
    channel_layer = get_channel_layer()
    async_to_sync(channel_layer.group_send)("my_group", {"type": "execute_query", "queryset_id": id})
    return HttpResponse(status=202)


def use_layer(backend: str, **config) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": config}}
    channel_layers.backends.clear()


class Gateways:
    """Gateways on one broker, each in a folder of its own."""

    def __init__(self, folder, layer: str):
        self.folder, self.layer, self.running = folder, layer, []

    def __call__(self, more: str = "") -> Gateway:
        folder = self.folder / f"gateway{len(self.running)}"
        folder.mkdir()
        (folder / "groupcast.toml").write_text(CONFIG + self.layer.format(more=more))
        make_database(folder / "shop.db")
        self.running.append(Gateway(folder))
        return self.running[-1]

    def end(self) -> None:
        for gateway in self.running:
            if gateway.process.poll() is None:
                gateway.kill()
            gateway.reader.join(20)
            panics = [line for line in gateway.lines if "panicked at" in line]
            assert not panics, f"a gateway panicked: {panics}"


def post(gateway, path: str, body: dict, status: int) -> dict:
    answer = httpx.post(gateway.url + path, json=body, trust_env=False)
    assert answer.status_code == status, answer.text
    return answer.json()


def states(gateway) -> list[str]:
    answer = httpx.get(f"{gateway.url}/v1/jobs?limit=1000", trust_env=False)
    return [job["state"] for job in json.loads(answer.text)["jobs"]]


def jobs(gateway) -> int:
    return len(states(gateway))


def metric(gateway, name: str) -> int:
    lines = httpx.get(f"{gateway.url}/metrics", trust_env=False).text.splitlines()
    return next(int(line.split()[-1]) for line in lines if name in line and not line.startswith("#"))
