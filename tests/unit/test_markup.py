"""Values in notebooks: well-formed HTML, whatever the names in them are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlitereplica import (
    Diff,
    FollowerStatus,
    HealthReport,
    LeaseStatus,
    ReplicaStatus,
    RestoreResult,
    RowChange,
    SchemaChange,
    Status,
)
from sqlitereplica.markup import card, table
from sqlitereplica.replicate.drill import VerifySummary

EVIL = "</td></table><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
NOW = datetime(2026, 11, 28, 12, 30, tzinfo=UTC)
TAGS = {"div", "b", "table", "tr", "td", "ul", "li"}


def shown(html: str) -> str:
    """The text of HTML of which every tag is one of ours."""
    tree = ElementTree.fromstring(html)
    assert {element.tag for element in tree.iter()} <= TAGS
    assert {name for e in tree.iter() for name in e.attrib} <= {"style"}
    return " ".join(tree.itertext())


def replica_status(text: str = "s3://bucket/app") -> ReplicaStatus:
    """One that streams."""
    drill = VerifySummary(
        at=NOW, ok=True, level="restore", duration_seconds=2.0, txid=6, problem=None
    )
    return ReplicaStatus(
        name=text,
        state="streaming",
        txid=7,
        lag_seconds=0.25,
        last_success=NOW,
        error=None,
        spool_bytes=2048,
        last_verify=drill,
    )


def status(text: str = "/data/app.db") -> Status:
    """Of a Replicator with one replica and a lease."""
    lease = LeaseStatus(replica=text, state="held", epoch=3, holder=text, error=None)
    return Status(
        database=text,
        state="running",
        txid=7,
        error=None,
        pending_pages=0,
        replicas=(replica_status(text),),
        pid=42,
        lease=lease,
    )


def follower_status(text: str = "/data/copy.db") -> FollowerStatus:
    """Of one that fails."""
    return FollowerStatus(
        database=text,
        replica=text,
        state="failing",
        txid=6,
        newest_txid=7,
        timestamp=NOW,
        lag_seconds=12.345,
        last_success=NOW,
        error=text,
    )


def result(text: str = "copy.db") -> RestoreResult:
    """A database put in place of another."""
    return RestoreResult(
        Path(text),
        True,
        "restored",
        source=text,
        txid=7,
        timestamp=NOW,
        page_size=4096,
        commit=512,
        files=3,
        bytes_fetched=1 << 20,
        pages_reused=100,
        old=Path(text + ".before"),
    )


def difference(text: str = "name", count: int = 1) -> Diff:
    """With a row and a statement of each kind."""
    row = {"id": 1, text: text}
    new = RowChange(text, "insert", {text: text}, None, row)
    update = RowChange(text, "update", {"id": 1}, row, {"id": 1, text: 5})
    gone = RowChange(text, "delete", {"id": 1}, row, None)
    schema = SchemaChange("table", text, None, text)
    return Diff(
        replica=text,
        from_txid=1,
        from_time=NOW,
        to_txid=7,
        to_time=NOW,
        schema=(schema,) * count,
        rows=(new, update, gone) * count,
    )


def health(text: str = "the reason") -> HealthReport:
    """One that is not well."""
    return HealthReport(ok=False, reasons=(text,), status=status(text))


MADE: list[Callable[[str], Any]] = [
    replica_status,
    status,
    follower_status,
    result,
    difference,
    health,
    lambda text: status(text).lease,
]


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_names_in_values_are_never_markup(make: Callable[[str], Any]) -> None:
    """Every value shows hostile names as the text that they are."""
    html = make(EVIL)._repr_html_()
    assert "<script" not in html
    assert EVIL in shown(html)


@given(st.text(alphabet=st.characters()), st.booleans())
def test_any_text_gives_well_formed_html(text: str, ok: bool) -> None:
    """Controls, surrogates and letters that turn the direction of writing, too."""
    html = card(text, text, [(text, text)], ok=ok, lines=[text])
    shown(html)
    assert html.replace("\n", "").isprintable()
    shown(table([[text, text]], [text]))


def test_what_is_shown_of_one_text_is_bounded() -> None:
    """A notebook keeps its output in its file."""
    assert len(difference("x" * 10**6, 500)._repr_html_()) < 500_000


def test_status_shows_each_replica_and_what_fails() -> None:
    """State and transaction of all, errors of each, colours by whether all is well."""
    good = status()._repr_html_()
    assert "#15803d" in good and "#dc2626" not in good
    for text in ("running", "/data/app.db", "held", "streaming", "2.0 KiB", "42"):
        assert text in shown(good)
    failing = replace(replica_status(), error="no route", history_error="full")
    bad = replace(status(), replicas=(failing,))
    assert "#dc2626" in bad._repr_html_()
    assert "no route; full" in shown(bad._repr_html_())
    alone = shown(failing._repr_html_())
    assert "no route" in alone and "full" in alone
    assert (failing.ok, replica_status().ok) == (False, True)
    stopped = replace(status(), state="stopped", replicas=(), lease=None, pid=0)
    assert "lease" not in shown(stopped._repr_html_())


def test_health_shows_its_reasons_and_the_status() -> None:
    """The sentence comes before what it was judged from."""
    text = shown(health()._repr_html_())
    assert text.index("not healthy") < text.index("the reason") < text.index("running")


def test_follower_shows_how_far_it_is() -> None:
    """Transactions, lag, and the error."""
    text = shown(follower_status("x.db")._repr_html_())
    assert "6 of 7" in text and "12.3 s" in text and "failing" in text
    fresh = replace(follower_status(), lag_seconds=None, last_success=None, error=None)
    assert "lag" not in shown(fresh._repr_html_())


def test_restore_shows_what_it_did() -> None:
    """Sizes in units, and nothing about what did not happen."""
    text = shown(result()._repr_html_())
    for part in ("Restored", "2.0 MiB", "1.0 MiB in 3 files", "100 of 512", ".before"):
        assert part in text
    skipped = shown(RestoreResult(Path("app.db"), False, "exists")._repr_html_())
    assert "Nothing restored: there is a database at" in skipped
    assert "fetched" not in skipped and "transaction" not in skipped


def test_diff_shows_tables_rows_and_how_many_more() -> None:
    """Counts by table, the first rows, and the number of those left out."""
    text = shown(difference("item", 10)._repr_html_())
    assert "30 rows changed" in text and "10 insert, 10 update, 10 delete" in text
    assert "and 10 more rows" in text
    assert "more" not in shown(difference()._repr_html_())
