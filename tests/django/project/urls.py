"""Where the views are."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path
from live import hooks, views

urlpatterns = [
    path("reports/<int:queryset_id>/", views.execute_query),
    path("work/<int:queryset_id>/", views.work),
    path("send/<str:group>/", views.send),
    path("login/", views.log_in),
    path("whoami/", views.who_am_i),
    path("accounts/login/", LoginView.as_view()),
    path("accounts/logout/", LogoutView.as_view(next_page="/whoami/")),
    path("groupcast/", hooks.groupcast),
]
