"""Where the views are."""

from django.urls import path
from live import views

urlpatterns = [
    path("reports/<int:queryset_id>/", views.execute_query),
    path("work/<int:queryset_id>/", views.work),
    path("send/<str:group>/", views.send),
    path("login/", views.log_in),
    path("whoami/", views.who_am_i),
]
