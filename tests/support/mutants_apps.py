"""Bugs in what brings a Replicator into frameworks."""

from __future__ import annotations

from support.mutant import Mutant

__all__ = ["APPS_MUTANTS"]

LIFESPAN = "tests/integration/test_asgi_lifespan.py::"
SESSIONS = "tests/integration/test_sqlalchemy.py::"
DJANGO = "tests/integration/test_django_app.py::"
FLASK = "tests/integration/test_real_app_flask.py::"
DATASETTE = "tests/integration/test_real_app_datasette.py::"

APPS_MUTANTS = (
    Mutant(
        "the server hears of the shutdown before the flush",
        "integrations/asgi.py",
        "                message = await self._flushed(message)\n",
        "                pass\n",
        LIFESPAN + "test_flush_that_fails_is_a_shutdown_that_failed",
    ),
    Mutant(
        "an application whose replication cannot start is served",
        "integrations/asgi.py",
        'await send(_failed("startup", error))\n            return',
        "replicator = self._make()",
        LIFESPAN + "test_replication_that_cannot_start_is_a_startup_that_failed",
    ),
    Mutant(
        "a commit of a session does not wait",
        "integrations/sqlalchemy.py",
        "session.info.pop(_COMMITTED, False):\n            wait()",
        "session.info.pop(_COMMITTED, False):\n            pass",
        SESSIONS + "test_commit_returns_when_it_is_durable",
    ),
    Mutant(
        "a savepoint counts as a commit",
        "integrations/sqlalchemy.py",
        "if not session.in_nested_transaction():",
        "if session.is_active:",
        SESSIONS + "test_only_the_commit_of_the_whole_transaction_waits",
    ),
    Mutant(
        "databases that are attached later are not noticed",
        "integrations/datasette/attached.py",
        "self._datasette.databases is self._seen:",
        "self._seen is not None:",
        DATASETTE + "test_attached_databases_are_replicated",
    ),
    Mutant(
        "a database that is detached is not flushed",
        "integrations/named.py",
        "            replicator = self._members.pop(name)\n        replicator.stop()",
        "            replicator = self._members.pop(name)\n        replicator.status()",
        "tests/unit/test_configured.py::"
        "test_group_takes_new_members_and_lets_old_ones_go",
    ),
    Mutant(
        "one that cannot be flushed is not told",
        "integrations/named.py",
        "            thread.join()\n        _raise_first(errors)",
        "            thread.join()",
        "tests/unit/test_configured.py::"
        "test_one_that_fails_keeps_no_other_from_starting_or_stopping",
    ),
    Mutant(
        "a live server of Django's tests replicates its database",
        "integrations/django/databases.py",
        "if any(_path_now(alias) != path for alias, path in _at_setup.items()):",
        "if not _at_setup:",
        DJANGO + "test_commands_and_tests_replicate_nothing",
    ),
    Mutant(
        "a replica that everybody may download is not noticed",
        "integrations/django/checks.py",
        'for setting in ("MEDIA_ROOT", "STATIC_ROOT"):',
        'for setting in ("MEDIA_ROOT",):',
        DJANGO + "test_check_finds_what_cannot_work",
    ),
    Mutant(
        "tests of a Flask application replicate",
        "integrations/flask.py",
        "if self._started or self._app.testing:",
        "if self._started:",
        FLASK + "test_replication_is_started_by_requests_but_not_by_tests",
    ),
    Mutant(
        "a server may fork behind Python's back",
        "replicate/embedding.py",
        "    if before_workers and forks and _HOOKS not in options:\n",
        "    if not before_workers and forks and _HOOKS not in options:\n",
        "tests/unit/replicate/test_embedding.py::test_fork_that_is_coming_is_an_objection",
    ),
    Mutant(
        "the child of a fork that nobody told of replicates",
        "replicate/embedding.py",
        "    if _began is None or _began == os.getpid():\n",
        "    if _began is None or path:\n",
        "tests/integration/workers/test_unnoticed_fork.py::"
        "test_every_call_is_refused_in_the_child",
    ),
    Mutant(
        "what a configuration says of a database's history does not reach its replicas",
        "config/build.py",
        "    retention = _retention(replica, db, config, env)\n",
        "    retention = _retention(replica, None, config, env)\n",
        "tests/unit/config/test_config_build.py"
        "::test_retention_of_a_database_is_that_of_its_replicas",
    ),
    Mutant(
        "whatever is at the path of the control socket is deleted",
        "cli/serving.py",
        "not stat.S_ISSOCK(os.lstat(path).st_mode)",
        "not os.path.exists(path)",
        "tests/integration/cli/test_cli_control.py"
        "::test_socket_takes_the_place_of_nothing_else",
    ),
    Mutant(
        "any folder is taken for metadata, and emptied",
        "replicate/metafolder.py",
        'if "lock" not in names and not all(map(_is_ours, names)):',
        'if "lock" in names and not names:',
        "tests/integration/lifecycle/test_meta_folder.py"
        "::test_folder_with_other_files_is_refused",
    ),
    Mutant(
        "the ASGI gate forgets what is committed behind the start of an answer",
        "integrations/asgigate.py",
        "            self._start = message\n            return\n",
        "            if await self._open(message):\n                return\n",
        "tests/integration/gate/test_gate_asgi.py"
        "::test_commit_behind_the_start_is_waited_for",
    ),
)
