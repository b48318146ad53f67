"""From a database's name to its replicas."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlitereplica import DatabaseStateError, Mirror, Replica
from sqlitereplica.group.naming import Naming


def replicas(template: object, rel: str) -> list[str]:
    """What the replicas of a database are called."""
    naming = Naming("/data", template, None)  # type: ignore[arg-type]
    return [
        str(r) if isinstance(r, str) else r.display_name  # type: ignore[union-attr]
        for r in naming.replicas(rel)
    ]


@pytest.mark.parametrize(
    ("template", "rel", "found"),
    [
        ("s3://b/{name}", "eu/acme.db", "s3://b/acme"),
        ("s3://b/{file}", "eu/acme.db", "s3://b/acme.db"),
        ("s3://b/x/{path}?region=r", "eu/acme.db", "s3://b/x/eu/acme.db?region=r"),
        ("s3://b/x?region=r", "eu/acme.db", "s3://b/x/eu/acme.db?region=r"),
        ("s3://b/x/", "acme.db", "s3://b/x/acme.db"),
        ("s3://b/{name}/{{v1}}", "acme", "s3://b/acme/{v1}"),
        ("s3://b/{name}", "a?b#c%d e.db", "s3://b/a%3Fb%23c%25d%20e"),
        ("/backups", "eu/a%b c.db", "/backups/eu/a%b c.db"),
        ("/backups/{name}", "a.b.db", "/backups/a.b"),
        (Replica("s3://b/{name}", name="main"), "acme.db", "main"),
        (Replica("s3://b/{name}"), "a c.db", "s3://b/a c"),
        (Replica("s3://b/x"), "eu/a?c.db", "s3://b/x/eu/a?c.db"),
        (Replica("s3://b", path="{name}/v1"), "acme.db", "s3://b/acme/v1"),
        (Mirror("/mirrors/{path}"), "eu/acme.db", "/mirrors/eu/acme.db"),
        (Mirror("/mirrors"), "acme.db", "/mirrors/acme.db"),
    ],
)
def test_fields_are_filled(template: object, rel: str, found: str) -> None:
    """In URLs what is special there is quoted; without a field the path is added."""
    assert replicas(template, rel) == [found]


def test_several_replicas() -> None:
    """Each of its own form."""
    found = replicas(["s3://b/{name}", "/backups"], "acme.db")
    assert found == ["s3://b/acme", "/backups/acme.db"]


@pytest.mark.parametrize(
    "template",
    [
        "s3://b/{tenant}",
        "s3://b/{name!r}",
        "s3://b/{name:>9}",
        "s3://b/{",
        "x/{0}",
        [5],
    ],
)
def test_templates_that_cannot_be_meant(template: object) -> None:
    """Unknown fields, and more than plain names in braces."""
    with pytest.raises(ValueError, match=r"field|brace|replica"):
        Naming("/data", template, None)  # type: ignore[arg-type]


def test_a_mirror_in_the_folder_is_refused() -> None:
    """It would be found, and mirrored in turn, without end."""
    with pytest.raises(ValueError, match="one more database"):
        Naming("/data", Mirror("/data/mirrors/{path}"), None)


def test_names_that_clash() -> None:
    """By name or file alone two databases may have one replica; by path never."""
    naming = Naming("/data", ["s3://b/{name}", "s3://c/{file}", "s3://d/{path}"], None)
    assert naming.clash_keys("eu/a.db")[0] == naming.clash_keys("us/a.sqlite")[0]
    assert naming.clash_keys("eu/a.db")[1] != naming.clash_keys("us/a.sqlite")[1]
    assert Naming("/data", "s3://d", None).clash_keys("a.db") == []


def test_names_that_are_not_text() -> None:
    """They cannot be told apart in a URL, so they are refused one by one."""
    naming = Naming("/data", "s3://b/{name}", None)
    with pytest.raises(DatabaseStateError) as caught:
        naming.replicas("a\udcff.db")
    assert caught.value.kind == "name"


def test_metadata_folders(tmp_path: Path) -> None:
    """Beside the database, of a link beside what it leads to; or all in one place."""
    (tmp_path / "real.db").touch()
    (tmp_path / "link.db").symlink_to("real.db")
    naming = Naming(str(tmp_path), "/b", None)
    assert naming.meta_path("link.db") == tmp_path / ".real.db-sqlitereplica"
    naming = Naming("/data", "/b", "/meta")
    assert naming.meta_path("eu/a.db") == Path("/meta/eu/a.db-sqlitereplica")
