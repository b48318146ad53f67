"""``manage.py sqlitereplica restore|status|verify``."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandError

from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.integrations.commands import (
    Target,
    restore_targets,
    show_status,
    verify_targets,
)
from sqlitereplica.integrations.django.databases import descriptions, target_of

__all__ = ["Command"]


class Command(BaseCommand):  # type: ignore[misc]
    """Databases by alias; without one, all that ``settings.SQLITEREPLICA`` names."""

    help = "Restore replicated databases, tell what their replicas hold, or verify it."
    # A database that is to be restored is not there for checks to look at.
    requires_system_checks: ClassVar[list[str]] = []
    requires_migrations_checks = False

    def add_arguments(self, parser: Any) -> None:
        """One parser for each command."""
        commands = parser.add_subparsers(dest="what", required=True, metavar="COMMAND")

        restore = commands.add_parser(
            "restore", help="restore what is missing, as before the first migration"
        )
        restore.add_argument("--at", help="a time, '5 minutes ago', or a pin")
        restore.add_argument("--txid", type=int, help="exactly this transaction")
        restore.add_argument(
            "--if-exists", choices=["skip", "error", "replace"], default="skip"
        )
        restore.add_argument("--missing", choices=["skip", "error"], default="skip")
        restore.add_argument(
            "--keep-old", action="store_true", help="keep what is replaced"
        )

        status = commands.add_parser(
            "status", help="tell what the replicas can restore"
        )

        verify = commands.add_parser("verify", help="prove that they can be restored")
        verify.add_argument(
            "--level", choices=["listing", "checksums", "restore"], default="checksums"
        )
        verify.add_argument("--scope", choices=["history", "latest"], default="history")

        for command in (status, verify):
            command.add_argument("--json", action="store_true", dest="as_json")
        for command in (restore, status, verify):
            command.add_argument("alias", nargs="*", help="default: all replicated")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it; whatever is wrong is one line and an exit code."""
        run = getattr(self, f"_{options['what']}")
        try:
            run(_targets(options["alias"]), options)
        except (SQLiteReplicaError, ValueError, OSError) as error:
            raise CommandError(str(error)) from error

    def _restore(self, targets: list[Target], options: dict[str, Any]) -> None:
        names = ("at", "txid", "if_exists", "missing", "keep_old")
        restore_targets(
            targets, self.stdout.write, **{name: options[name] for name in names}
        )

    def _status(self, targets: list[Target], options: dict[str, Any]) -> None:
        if not show_status(targets, self.stdout.write, as_json=options["as_json"]):
            raise CommandError("not every replica has a backup")

    def _verify(self, targets: list[Target], options: dict[str, Any]) -> None:
        names = ("level", "scope", "as_json")
        chosen = {name: options[name] for name in names}
        if not verify_targets(targets, self.stdout.write, **chosen):
            raise CommandError("not all is as it should be")


def _targets(aliases: list[str]) -> list[Target]:
    known = descriptions()
    for alias in aliases:
        if alias not in known:
            raise CommandError(f"SQLITEREPLICA does not name the database {alias!r}")
    return [target_of(alias) for alias in aliases or known]
