"""Settings of a small project; what matters here is CHANNEL_LAYERS and JOBS_SECRET."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = True
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "for-this-example-only")
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["flights"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "airline.urls"
WSGI_APPLICATION = "airline.wsgi.application"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "airline.db",
        # Seconds that a query waits for somebody who writes.
        "OPTIONS": {"timeout": 30},
    }
}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# `get_channel_layer().group_send(...)` goes to Groupcast.
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "groupcast_layer.GroupcastChannelLayer",
        "CONFIG": {"url": os.environ.get("GROUPCAST_URL", "http://127.0.0.1:8000")},
    }
}

# What Groupcast signs jobs with; the same variable as `secret_env` of groupcast.toml.
JOBS_SECRET = os.environ.get("JOBS_SECRET", "")
