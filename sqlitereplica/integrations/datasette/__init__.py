"""A plugin for Datasette: its databases are replicated while it serves them.

Datasette finds it by its entry point and configures it under ``plugins``; without a
configuration it does nothing. It works from the server's lifespan, so that commands such as
``datasette --get`` replicate nothing. Databases that are attached or detached later are
noticed with the next request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from datasette import Forbidden, Response, hookimpl
from datasette.utils import actor_matches_allow

from sqlitereplica.integrations.asgi import Replicated
from sqlitereplica.integrations.asgigate import ASGIApp, Message, Receive, Send
from sqlitereplica.integrations.datasette.attached import NAME, Attached

__all__ = [
    "asgi_wrapper",
    "menu_links",
    "permission_allowed",
    "register_routes",
]

_ACTION = "sqlitereplica-status"
_PATH = "/-/sqlitereplica"

_attached: WeakKeyDictionary[Any, Attached] = WeakKeyDictionary()


def _attached_to(datasette: Any) -> Attached:
    return _attached.setdefault(datasette, Attached(datasette))


@hookimpl  # type: ignore[untyped-decorator]
def asgi_wrapper(datasette: Any) -> Callable[[ASGIApp], ASGIApp]:
    """Replicate from the server's startup to its shutdown."""
    attached = _attached_to(datasette)

    def wrap(app: ASGIApp) -> ASGIApp:
        # Without a lifespan it is a command, such as ``datasette --get``.
        replicated = Replicated(app, lambda: attached, needs_lifespan=False)

        async def follow(scope: Message, receive: Receive, send: Send) -> None:
            await attached.follow()
            await replicated(scope, receive, send)

        return follow

    return wrap


# -- the status page -------------------------------------------------------------------


@hookimpl  # type: ignore[untyped-decorator]
def register_routes() -> list[tuple[str, Callable[..., Any]]]:
    """The page, the same as JSON, and the health for a load balancer."""
    return [
        (rf"^{_PATH}$", _page),
        (rf"^{_PATH}\.json$", _json),
        (rf"^{_PATH}/health$", _health),
    ]


async def _page(datasette: Any, request: Any) -> Any:
    await _check(datasette, request)
    report = _attached_to(datasette).report()
    context = {"report": report, "data_url": datasette.urls.path(f"{_PATH}.json")}
    body = await datasette.render_template(
        "sqlitereplica_status.html", context, request=request
    )
    return Response.html(body, headers={"cache-control": "no-store"})


async def _json(datasette: Any, request: Any) -> Any:
    await _check(datasette, request)
    return _answer(_attached_to(datasette).report())


async def _health(datasette: Any) -> Any:
    """Open to everybody: it tells whether all is well, and nothing else."""
    ok = _attached_to(datasette).report()["ok"]
    return _answer({"ok": ok}, status=200 if ok else 503)


def _answer(value: dict[str, Any], status: int = 200) -> Any:
    import msgspec

    return Response(
        msgspec.json.encode(value).decode(),
        status=status,
        headers={"cache-control": "no-store"},
        content_type="application/json; charset=utf-8",
    )


# -- who may see it --------------------------------------------------------------------


@hookimpl  # type: ignore[untyped-decorator]
def permission_allowed(datasette: Any, actor: Any, action: str) -> bool | None:
    """Root may see the page, and whoever the plugin's ``allow`` block names."""
    if action != _ACTION:
        return None
    if actor and actor.get("id") == "root":
        return True
    allow = (datasette.plugin_config(NAME) or {}).get("allow")
    return None if allow is None else bool(actor_matches_allow(actor, allow))


async def _may_see(datasette: Any, actor: Any) -> bool:
    return bool(await datasette.permission_allowed(actor, _ACTION, default=False))


async def _check(datasette: Any, request: Any) -> None:
    if not await _may_see(datasette, request.actor):
        raise Forbidden(f"{_ACTION} is needed to see the replication")


@hookimpl  # type: ignore[untyped-decorator]
def menu_links(datasette: Any, actor: Any) -> Callable[[], Any]:
    """A link in the menu of those who may see the page."""

    async def links() -> list[dict[str, str]]:
        if not await _may_see(datasette, actor):
            return []
        return [{"href": datasette.urls.path(_PATH), "label": "Replication"}]

    return links
