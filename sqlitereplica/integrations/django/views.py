"""A view for load balancers and for people who want to know."""

from __future__ import annotations

from typing import Any

from django.http import JsonResponse

from sqlitereplica.integrations.django.databases import replicators

__all__ = ["health"]


def health(request: Any) -> Any:
    """``{"ok": true, "databases": {"default": true}}`` with 200; with 503 if not ok.

    It tells aliases, but neither paths nor places nor errors.
    """
    report = replicators().report()
    databases = {name: value["ok"] for name, value in report["databases"].items()}
    answer = JsonResponse(
        {"ok": report["ok"], "databases": databases},
        status=200 if report["ok"] else 503,
    )
    answer["Cache-Control"] = "no-store"
    return answer
