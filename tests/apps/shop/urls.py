"""The addresses of the shop."""

from __future__ import annotations

from django.urls import path

from shop import views

urlpatterns = [
    path("order/<slug:reference>", views.order),
    path("status", views.status),
]
