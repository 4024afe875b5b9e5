"""A project of Django Channels; what its channel layer is comes from the environment.

LAYER                 core (default), pubsub or nats
LAYER_HOSTS           addresses, apart by commas (default redis://127.0.0.1:6379)
LAYER_PREFIX          what all names begin with (default: the layer's own, asgi)
LAYER_SERIALIZER      msgpack or json
LAYER_KEYS            symmetric encryption keys, apart by commas
LAYER_CAPACITY        messages that a channel holds
LAYER_EXPIRY          seconds after which an unread message goes
DATABASE              file of the database (default db.sqlite3 beside manage.py)
HOOK_SECRET           what the gateway signs its questions with (live/hooks.py)
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).parent.parent
SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = [
    "daphne",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "channels",
    "live",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "project.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
LOGIN_REDIRECT_URL = "/whoami/"
HOOK_SECRET = os.environ.get("HOOK_SECRET", "")
ASGI_APPLICATION = "project.asgi.application"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", BASE_DIR / "db.sqlite3"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True


BACKENDS = {
    "core": "channels_redis.core.RedisChannelLayer",
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
    "nats": "channels_nats.NatsChannelLayer",
}


def channel_layer() -> dict:
    kind = os.environ.get("LAYER", "core")
    hosts = os.environ.get("LAYER_HOSTS", "redis://127.0.0.1:6379").split(",")
    config = {"servers" if kind == "nats" else "hosts": hosts}
    for name in ("prefix", "capacity", "expiry"):
        if value := os.environ.get(f"LAYER_{name.upper()}"):
            config[name] = int(value) if value.isdigit() else value
    if serializer := os.environ.get("LAYER_SERIALIZER"):
        config["serializer_format"] = serializer
    if keys := os.environ.get("LAYER_KEYS"):
        config["symmetric_encryption_keys"] = keys.split(",")
    return {"BACKEND": BACKENDS[kind], "CONFIG": config}


CHANNEL_LAYERS = {"default": channel_layer()}
