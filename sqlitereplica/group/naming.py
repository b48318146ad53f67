"""From the name of a database in its folder to its replicas and its metadata folder.

A replica of a group is a template: a URL, a folder, a ``Replica`` or a ``Mirror`` in which
fields stand for the database:

    {path}  its path below the folder, ``eu/acme.db``
    {file}  its file name, ``acme.db``
    {name}  its file name without the last suffix, ``acme``

A template without a field is the parent of all of them, as in Litestream: ``/{path}`` is
added. Two databases may come to the same replica by ``{name}`` or ``{file}`` alone: the
second is refused (``clash_key``).
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from sqlitereplica.errors import DatabaseStateError
from sqlitereplica.replicate import Mirror
from sqlitereplica.replicate.metafolder import default_folder
from sqlitereplica.replicate.options import ReplicaLike
from sqlitereplica.store import Replica

__all__ = ["Naming"]

_FIELDS = ("path", "file", "name")


class Naming:
    """Makes the replicas of each database of a folder. Pure."""

    def __init__(
        self,
        folder: str,
        templates: Sequence[ReplicaLike] | ReplicaLike,
        meta_dir: str | None,
    ) -> None:
        """Raises ValueError for templates that cannot be meant."""
        if isinstance(templates, str | os.PathLike | Replica | Mirror):
            templates = [templates]
        self._folder, self._meta_dir = folder, meta_dir
        self._templates = [_checked(template) for template in templates]
        if any(isinstance(t, Mirror) and _is_below(t, folder) for t in self._templates):
            raise ValueError(
                f"a Mirror below {folder} would be taken for one more database of it"
            )

    def database(self, rel: str) -> str:
        """The path of a database."""
        return f"{self._folder}/{rel}"

    def meta_path(self, rel: str) -> Path:
        """Its metadata folder."""
        if self._meta_dir is None:
            return default_folder(os.path.realpath(self.database(rel)))
        return Path(self._meta_dir, f"{rel}-sqlitereplica")

    def replicas(self, rel: str) -> list[ReplicaLike]:
        """Its replicas.

        Raises:
            DatabaseStateError: ``kind`` ``"name"``: it has a name that no URL can have.
        """
        try:
            rel.encode()
        except UnicodeEncodeError as error:
            raise DatabaseStateError(
                f"{self.database(rel)!r}: the name is not UTF-8, so it cannot be the name"
                " of a replica",
                path=self.database(rel),
                kind="name",
            ) from error
        return [_filled(template, rel) for template in self._templates]

    def places(self, rel: str) -> list[str]:
        """Where its replicas are, as text that is the same as long as they are."""
        return [f"{_text_of(t)} {rel}" for t in self._templates]

    def clash_keys(self, rel: str) -> list[str]:
        """Texts that no other database may have in common with this one."""
        values = _values(rel)
        keys = []
        for number, template in enumerate(self._templates):
            fields = _fields_of(_text_of(template))
            if fields and "path" not in fields:
                keys.append(f"{number}:" + "/".join(values[f] for f in sorted(fields)))
        return keys


def _checked(template: ReplicaLike) -> ReplicaLike:
    if not isinstance(template, str | os.PathLike | Replica | Mirror):
        raise ValueError(
            f"a replica is a URL, a folder, a Replica or a Mirror: {template!r}"
        )
    unknown = _fields_of(_text_of(template)) - set(_FIELDS)
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in _FIELDS)
        raise ValueError(
            f"{_text_of(template)}: {{{min(unknown)}}} is none of the fields: {known}"
        )
    return template


def _text_of(template: ReplicaLike) -> str:
    """All of a template that may have fields."""
    if isinstance(template, Mirror):
        return os.fspath(template.path)
    if isinstance(template, Replica):
        url = os.fspath(template.url) if _is_text(template.url) else ""
        return f"{url} {template.path or ''}"
    return os.fspath(template)


def _is_below(mirror: Mirror, folder: str) -> bool:
    return f"{os.path.realpath(mirror.pattern)}/".startswith(f"{folder}/")


def _is_text(url: object) -> bool:
    return isinstance(url, str | os.PathLike)


def _fields_of(text: str) -> set[str]:
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{text}: {error}; write {{{{ for a brace") from error
    if any(spec or conversion for _, _, spec, conversion in parts):
        raise ValueError(f"{text}: a field is a plain name in braces")
    return {name for _, name, _, _ in parts if name is not None}


def _values(rel: str) -> dict[str, str]:
    file = rel.rpartition("/")[2]
    return {"path": rel, "file": file, "name": file.rpartition(".")[0] or file}


def _filled(template: ReplicaLike, rel: str) -> ReplicaLike:
    values = _values(rel)
    if isinstance(template, Mirror):
        plain = {key: value.replace("%", "%%") for key, value in values.items()}
        return replace(template, path=_fill(os.fspath(template.path), plain))
    if not isinstance(template, Replica):
        return _fill(os.fspath(template), values)
    if not _fields_of(_text_of(template)):
        below = f"{template.path or ''}/{rel}".lstrip("/")
        return replace(template, path=below)
    path = template.path
    return replace(
        template,
        url=_fill(os.fspath(template.url), values, add=False)
        if isinstance(template.url, str | os.PathLike)
        else template.url,
        path=path and path.format(**values),
    )


def _fill(text: str, values: Mapping[str, str], *, add: bool = True) -> str:
    if "://" in text:  # what has a meaning in a URL is not to have it in a name
        values = {key: quote(value, safe="/") for key, value in values.items()}
    if not _fields_of(text) and add:
        base, mark, query = text.partition("?") if "://" in text else (text, "", "")
        return f"{base.rstrip('/').format()}/{values['path']}{mark}{query}"
    return text.format(**values)
