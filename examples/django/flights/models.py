"""The data that is asked."""

from django.db import models


class Flight(models.Model):
    """A flight that has landed."""

    carrier = models.CharField(max_length=2)
    origin = models.CharField(max_length=3, db_index=True)
    dest = models.CharField(max_length=3)
    delay = models.IntegerField(help_text="Minutes late; negative if early")
