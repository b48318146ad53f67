"""Which folders are replicas, on trees as applications and attackers make them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fsspec import AbstractFileSystem
from support.fleets import plant
from support.replicas import memory_files

from sqlitereplica import Encryption, Replica, StoreError
from sqlitereplica.store import Layout, find_replicas
from sqlitereplica.store.finding import _Tree
from sqlitereplica.testing import FaultyStore, only

NAME = "0000000000000001-0000000000000001.ltx"


def found(where: Replica | Path) -> list[str]:
    """The paths of the replicas there, below it."""
    top = Replica(where) if isinstance(where, Path) else where
    replicas = list(find_replicas(top))
    assert all(r.encryption == top.encryption for r in replicas)
    root = f"{top.display_name}/"
    names = [f"{r.display_name}/".removeprefix(root).rstrip("/") for r in replicas]
    return sorted(names)


def make(fs: AbstractFileSystem, *paths: str) -> None:
    """Files of which only the names matter."""
    for path in paths:
        fs.pipe_file(path, b"?")


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_replicas_are_found_at_any_depth(kind: str, tmp_path: Path) -> None:
    """Also one whose own name is that of a folder of ours."""
    top = Replica(tmp_path) if kind == "folder" else Replica(memory_files(), path="/t")
    for name in ("b", "a", "deep/er/c", "ltx", "0000", "lock"):
        base = f"{top.path}/{name}" if top.path else name
        plant(Replica(top.url, path=base), [1])
    assert found(top) == ["0000", "a", "b", "deep/er/c", "lock", "ltx"]


def test_place_that_is_a_replica_is_found_and_what_is_below_it(tmp_path: Path) -> None:
    """Its own folders are not looked into."""
    plant(Replica(tmp_path))
    plant(Replica(tmp_path / "archive" / "old"))
    (tmp_path / "pins" / "ltx" / "0").mkdir(parents=True)
    assert found(tmp_path) == ["", "archive/old"]


def test_encrypted_replicas_are_found_without_a_key(tmp_path: Path) -> None:
    """And with one it is handed on."""
    key = Encryption(key=Encryption.new_key())
    plant(Replica(tmp_path / "a", encryption=key))
    assert found(tmp_path) == ["a"]
    assert found(Replica(tmp_path, encryption=key)) == ["a"]


def test_replicas_of_litestream_03_are_found(tmp_path: Path) -> None:
    """By the folder of a generation; another folder of that name is none."""
    (tmp_path / "a" / "generations" / "0123456789abcdef").mkdir(parents=True)
    (tmp_path / "b" / "generations" / "1984").mkdir(parents=True)
    assert found(tmp_path) == ["a"]


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    """Nor in what is only called like it."""
    (tmp_path / "ltx").mkdir()
    (tmp_path / "a" / "ltx" / "ten").mkdir(parents=True)
    assert found(tmp_path) == [] == found(tmp_path / "missing")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    """And a replica that has two names is one."""
    plant(Replica(tmp_path / "a"))
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert found(tmp_path) == ["a"]


def test_folder_that_cannot_be_listed_is_said() -> None:
    """What is in it is not known: to leave it out would be a lie."""
    store = FaultyStore()
    plant(store.replica)
    store.plan = only("list")
    with pytest.raises(StoreError):
        list(find_replicas(store.replica))


def test_options_are_for_a_url(tmp_path: Path) -> None:
    """A Replica has its own."""
    with pytest.raises(ValueError):
        find_replicas(Replica(tmp_path), storage_options={})


# -- as S3 has it: levels are four digits, and names may be anything ----------------------


def find(fs: AbstractFileSystem, root: str = "/b") -> list[str]:
    """The replicas in a tree that has the layout of S3."""
    return sorted(_Tree(fs, root, layout=Layout(hexadecimal=True)).find())


def test_databases_with_numbers_are_not_taken_for_levels() -> None:
    """What tells them apart is whether there are files of ours."""
    fs = memory_files()
    make(fs, f"/b/apps/0001/0000/{NAME}", f"/b/apps/0009/0009/{NAME}")
    make(fs, "/b/0003/notes.txt", "/b/x/0000/0000000000000001.ltx")
    assert find(fs) == ["apps/0001", "apps/0009"]


def test_top_of_a_bucket_is_a_replica_beside_others() -> None:
    """There keys begin with a dot."""
    fs = memory_files()
    make(fs, f"/b/./0000/{NAME}", f"/b/app/0000/{NAME}")
    assert find(fs, "/b/.") == ["", "app"]


def test_names_that_are_no_part_of_a_path_are_passed_over() -> None:
    """They come from the store: restored to a path they would lead elsewhere."""
    fs = memory_files()
    make(fs, f"/b/../x/0000/{NAME}", f"/b/a/../../y/0000/{NAME}", f"/b/a/0000/{NAME}")
    assert find(fs) == ["a"]


def test_files_are_not_listed() -> None:
    """One request for a folder, and one more to be sure of the replica."""
    fs = memory_files()
    for number in range(10):
        make(fs, f"/b/{number}/0000/{NAME}", f"/b/{number}/0009/{NAME}")
    tree = _Tree(fs, "/b", layout=Layout(hexadecimal=True))
    assert len(list(tree.find())) == 10
    assert tree.requests["list"] == 1 + 2 * 10
