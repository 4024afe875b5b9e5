"""What people call."""

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.http import JsonResponse


def report(request, queryset_id):
    """Hands a query over and returns at once; who listens to `my_group` gets the rows."""
    channel_layer = get_channel_layer()
    async_to_sync(channel_layer.group_send)("my_group", {"type": "execute_query", "queryset_id": queryset_id})
    return JsonResponse({"status": "accepted"}, status=202)
