"""The library's own plugin: shelves (databases) are attached and detached by requests."""

from __future__ import annotations

from typing import Any

from datasette import Response, hookimpl
from datasette.database import Database


@hookimpl
def register_routes() -> list[tuple[str, Any]]:
    """What can be asked."""
    return [
        (r"^/status$", status),
        (r"^/attach/(?P<name>\w+)$", attach),
        (r"^/detach/(?P<name>\w+)$", detach),
    ]


async def status(datasette: Any) -> Any:
    """Which databases there are."""
    return Response.json({"databases": sorted(datasette.databases)})


async def attach(datasette: Any, request: Any) -> Any:
    """Attach a file, which is made if need be."""
    name = request.url_vars["name"]
    database = Database(datasette, path=f"{name}.db", is_mutable=True)
    datasette.add_database(database, name=name)
    await database.execute_write("create table if not exists book(title)")
    await database.execute_write("insert into book values('the first')")
    return Response.json({"attached": name})


async def detach(datasette: Any, request: Any) -> Any:
    """Detach one; its file stays."""
    datasette.remove_database(request.url_vars["name"])
    return Response.json({})


@hookimpl
def skip_csrf(scope: Any) -> bool:
    """Requests are made by tests, with no cookies."""
    return True
