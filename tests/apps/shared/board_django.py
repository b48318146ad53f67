"""The board as a Django project of one file, for ``runserver`` and its reloader."""

from __future__ import annotations

import sys

import django
from board import answer
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.urls import re_path

__all__ = ["urlpatterns"]

settings.configure(
    DEBUG=True,
    SECRET_KEY="of a test",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[],
    DATABASES={},
)
django.setup()


def view(request: HttpRequest, path: str) -> JsonResponse:
    """Serve one request."""
    return JsonResponse(answer(request.method or "", f"/{path}"))


urlpatterns = [re_path("^(.*)$", view)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
