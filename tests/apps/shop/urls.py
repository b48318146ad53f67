"""The addresses of the shop."""

from __future__ import annotations

from django.urls import path

from shop import views
from sqlitereplica.integrations.django.views import health

urlpatterns = [
    path("order/<slug:reference>", views.order),
    path("status", views.status),
    path("health", health),
]
