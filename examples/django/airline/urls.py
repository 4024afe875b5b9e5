"""Two addresses: one for people, one for Groupcast."""

from django.urls import path

from flights import jobs, views

urlpatterns = [
    path("reports/<int:queryset_id>/", views.report),
    path("jobs/", jobs.run),
]
