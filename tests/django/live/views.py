"""Views that leave work to others and return at once, and a session to log in with."""

import json

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.contrib.auth import authenticate, login
from django.http import JsonResponse
from django.views.decorators.http import require_POST


def execute_query(request, queryset_id: int):
    channel_layer = get_channel_layer()
    async_to_sync(channel_layer.group_send)("my_group", {"type": "execute_query", "queryset_id": queryset_id})
    return JsonResponse({"status": "accepted"}, status=202)


def work(request, queryset_id: int):
    """The same for a worker of Channels, which answers to the group."""
    message = {"type": "execute_query", "queryset_id": queryset_id, "group": "my_group"}
    async_to_sync(get_channel_layer().send)("db-queries", message)
    return JsonResponse({"status": "accepted"}, status=202)


@require_POST
def send(request, group: str):
    """Sends the body to a group."""
    async_to_sync(get_channel_layer().group_send)(group, json.loads(request.body))
    return JsonResponse({"status": "sent"}, status=202)


@require_POST
def log_in(request):
    user = authenticate(request, username=request.POST["username"], password=request.POST["password"])
    if user is None:
        return JsonResponse({"user": None}, status=403)
    login(request, user)
    return JsonResponse({"user": user.username})


def who_am_i(request):
    return JsonResponse({"user": request.user.username or None})
