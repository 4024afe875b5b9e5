"""`python manage.py load_flights`."""

from django.core.management.base import BaseCommand
from django.db import transaction

from flights.models import Flight

CARRIERS = ("AA", "B6", "DL", "UA")
AIRPORTS = ("JFK", "LGA", "EWR")
DESTINATIONS = ("BOS", "LAX", "MIA", "ORD", "SFO")


class Command(BaseCommand):
    """Fills the table with 3000 made-up flights, the same each time."""

    help = "Fills the table with 3000 made-up flights."

    def handle(self, *args, **options):
        """Replaces what is there."""
        flights = [
            Flight(
                carrier=CARRIERS[n % len(CARRIERS)],
                origin=AIRPORTS[n % len(AIRPORTS)],
                dest=DESTINATIONS[n * 7 % len(DESTINATIONS)],
                delay=n * n % 181 - 30,
            )
            for n in range(3000)
        ]
        with transaction.atomic():
            Flight.objects.all().delete()
            Flight.objects.bulk_create(flights)
        self.stdout.write(f"{len(flights)} flights are loaded")
