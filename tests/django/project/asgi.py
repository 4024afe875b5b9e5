"""What daphne, uvicorn and `runworker` serve: views, sockets and channels."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django = get_asgi_application()

# The models they name are there as soon as Django is.
from live.consumers import GroupConsumer, QueryConsumer  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": django,
        "websocket": AuthMiddlewareStack(URLRouter([path("ws/<str:group>/", GroupConsumer.as_asgi())])),
        "channel": ChannelNameRouter({"db-queries": QueryConsumer.as_asgi()}),
    }
)
