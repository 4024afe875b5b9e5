"""The service that a gateway asks about clients: Django's sessions say who they are, its groups where they may be."""

import json
from importlib import import_module

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import Group
from django.http import HttpRequest, HttpResponseForbidden, JsonResponse
from django.http.cookie import parse_cookie
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from standardwebhooks import Webhook, WebhookVerificationError

SessionStore = import_module(settings.SESSION_ENGINE).SessionStore


@csrf_exempt
@require_POST
def groupcast(request):
    try:
        Webhook(settings.HOOK_SECRET).verify(request.body, dict(request.headers))
    except WebhookVerificationError:
        return HttpResponseForbidden()
    event = json.loads(request.body)
    answer = {
        "websocket.connect": connect,
        "http.request": connect,
        "group.subscribe": subscribe,
        "websocket.receive": receive,
    }.get(event["type"], lambda event: [])(event)
    return JsonResponse(answer, safe=False)


def connect(event: dict) -> dict:
    request = session_of(event["scope"])
    user = get_user(request)
    if not user.is_authenticated:
        return {"type": "websocket.close", "code": 3000, "reason": "log in first"}
    return {
        "type": "websocket.accept",
        "user": user.username,
        "groups": [f"user.{user.pk}"],
        "expires_at": request.session.get_expiry_date().timestamp(),
    }


def subscribe(event: dict) -> dict:
    """A room is open to the members of Django's group of that name."""
    if in_group(event["user"], event["group"].removeprefix("room.")):
        return {"type": "allow"}
    return {"type": "deny", "reason": "you are not invited"}


def receive(event: dict) -> list:
    """What was said, with the name of who said it, which nobody can choose himself."""
    if not in_group(event["user"], event["group"].removeprefix("room.")):
        return [{"type": "deny", "reason": "you are not invited"}]
    said = {"type": "chat.said", "by": event["user"], "text": str(event["message"].get("text", ""))[:500]}
    return [{"type": "group_send", "group": event["group"], "message": said}]


def session_of(scope: dict) -> HttpRequest:
    headers = dict(scope["headers"])
    cookies = parse_cookie(headers.get("cookie", ""))
    request = HttpRequest()
    request.session = SessionStore(cookies.get(settings.SESSION_COOKIE_NAME))
    return request


def in_group(username: str | None, name: str) -> bool:
    return Group.objects.filter(name=name, user__username=username, user__is_active=True).exists()
