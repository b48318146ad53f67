"""What is said against a server that embeds Python."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sqlitereplica.replicate.embedding import objection_to

HOOKS = {"py-call-uwsgi-fork-hooks": True}


def uwsgi(worker: int = 0, master: int = 9, count: int = 2, **more: Any) -> Any:
    """The module that uWSGI has in its processes."""
    return SimpleNamespace(
        opt=more.pop("opt", {}),
        worker_id=lambda: worker,
        masterpid=lambda: master,
        numproc=count,
        **{"has_threads": 1, **more},
    )


@pytest.mark.parametrize(
    "server",
    [
        None,
        SimpleNamespace(),  # some other module of that name
        uwsgi(worker=2),
        uwsgi(opt=HOOKS),
        uwsgi(master=0, count=1),
        uwsgi(worker=1, has_threads=None, opt={"threads": b"2"}),
        uwsgi(worker=1, has_threads=None, opt={"enable-threads": True}),
    ],
)
def test_server_that_does_no_harm_is_taken(server: Any) -> None:
    """Workers that loaded the application, one process alone, forks that are told."""
    assert objection_to(server) is None


@pytest.mark.parametrize(
    "server", [uwsgi(), uwsgi(master=0), uwsgi(count=1)], ids=["all", "main", "one"]
)
def test_fork_that_is_coming_is_an_objection(server: Any) -> None:
    """Of a main process, or of the first worker."""
    why = objection_to(server)
    assert why is not None and "--lazy-apps" in why


@pytest.mark.parametrize("known", [0, None])
def test_no_threads_are_an_objection(known: int | None) -> None:
    """Builds of today always have them; those that ask for an option have not."""
    why = objection_to(uwsgi(worker=1, has_threads=known))
    assert why is not None and "--enable-threads" in why
