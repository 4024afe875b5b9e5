"""The querysets that may be asked for, by id: a message names one, and never sends one."""

from django.db.models import Avg, Count

from .models import Flight


def worst_routes():
    """Routes out of JFK, the latest first."""
    routes = Flight.objects.filter(origin="JFK").values("origin", "dest")
    return routes.annotate(flights=Count("id"), delay=Avg("delay")).order_by("-delay", "dest")


def late_flights():
    """Flights that were more than an hour late."""
    return Flight.objects.filter(delay__gt=60).values("carrier", "origin", "dest", "delay").order_by("-delay", "id")


QUERYSETS = {7: worst_routes, 8: late_flights}
