"""The alert rules and the dashboard, against what a real daemon is scraped for."""

from __future__ import annotations

import re
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from support.commandline import CommandLine, eventually, make_app, write
from support.promtool import (
    alerts_of,
    check_rules,
    expressions_of,
    firing,
    run_rule_tests,
)

MONITORING = Path(__file__).parents[3] / "docs" / "monitoring"
RULES, DASHBOARD = MONITORING / "alerts.yml", MONITORING / "dashboard.json"
RULE_TESTS = Path(__file__).parent / "alerts_test.yml"
OF_PROMETHEUS = {"job", "instance", "alertname"}
OF_A_REQUEST = {"replica_type", "operation"}
OF_LITESTREAM = {
    "db_size": {"db"},
    "wal_size": {"db"},
    "total_wal_bytes": {"db"},
    "txid": {"db"},
    "sync_count": {"db"},
    "sync_error_count": {"db"},
    "sync_seconds": {"db"},
    "disk_full": {"db"},
    "checkpoint_count": {"db", "mode"},
    "checkpoint_error_count": {"db", "mode"},
    "checkpoint_seconds": {"db", "mode"},
    "compaction_verify_error_count": {"db"},
    "l0_retention_files_total": {"db", "status"},
    "replica_operation_total": OF_A_REQUEST,
    "replica_operation_bytes": OF_A_REQUEST,
    "replica_operation_duration_seconds_bucket": {*OF_A_REQUEST, "le"},
    "replica_operation_duration_seconds_sum": OF_A_REQUEST,
    "replica_operation_duration_seconds_count": OF_A_REQUEST,
    "replica_operation_errors_total": {*OF_A_REQUEST, "code"},
}
"""Every metric that Litestream 0.5.17 has, with its labels."""

CONFIG = """
addr: "127.0.0.1:0"
socket: {{enabled: true, path: {socket}}}
verify-interval: 1s
dbs:
  - path: app.db
    replica: {{path: {replica}, sync-interval: 50ms}}
"""


class Scraped:
    """A daemon that is asked for its metrics."""

    def __init__(self, cli: CommandLine) -> None:
        log = (cli.folder / "log-0").read_text()
        where = log.split("metrics and health on ")[1].split('"')[0].split()[0]
        self._url = f"http://{where}/metrics"

    def text(self) -> str:
        """The page."""
        with urllib.request.urlopen(self._url, timeout=30) as answer:
            return str(answer.read().decode())

    def samples(self) -> list[Sample]:
        """What is ours on it."""
        families = text_string_to_metric_families(self.text())
        found = [sample for family in families for sample in family.samples]
        return [sample for sample in found if sample.name.startswith("litestream_")]

    def until(self, **values: float) -> list[Sample]:
        """The first scrape in which these metrics all have these values."""
        wanted = {f"litestream_{name}": value for name, value in values.items()}
        scrapes: list[list[Sample]] = []

        def look() -> bool:
            scrapes.append(self.samples())
            found = {sample.name: sample.value for sample in scrapes[-1]}
            return {name: found.get(name) for name in wanted} == wanted

        eventually(look, f"a scrape with {values}")
        return scrapes[-1]


@contextmanager
def daemon(folder: Path, replica: str, *flags: str) -> Iterator[Scraped]:
    """A daemon on one database; it has to answer ``sync -wait`` if its replica works."""
    short = tempfile.mkdtemp(prefix="sr-")  # the path of a socket has at most 107 bytes
    cli = CommandLine(folder)
    text = CONFIG.format(socket=f"{short}/s", replica=replica)
    (folder / "l.yml").write_text(text)
    try:
        with cli.killed("replicate", "-config", "l.yml", *flags):
            eventually(Path(short, "s").exists, "the socket")
            if replica == "replica":
                write(folder / "app.db", 3)
                cli(
                    "sync", "app.db", "-wait", "-timeout", "60", "-socket", f"{short}/s"
                )
            yield Scraped(cli)
    finally:
        shutil.rmtree(short)


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """A scrape of a daemon that restored its database and has proved its replica."""
    folder = tmp_path_factory.mktemp("well")
    make_app(folder / "app.db")
    CommandLine(folder)("replicate", "-once", str(folder / "app.db"), "replica")
    for path in folder.glob("*app.db*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with daemon(folder, "replica", "-restore-if-db-not-exists") as scraped:
        fine = {"running": 1, "replica_up": 1, "disk_full": 0}
        return scraped.until(**fine, replica_verify_ok=1, replica_lag_seconds=0)


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """A scrape of a daemon whose replica is no folder and cannot become one."""
    folder = tmp_path_factory.mktemp("failing")
    make_app(folder / "app.db")
    (folder / "blocked").write_text("a file")
    with daemon(folder, "blocked/replica") as scraped:
        return scraped.until(running=1, replica_up=0)


def names_in(expression: str) -> set[str]:
    """The metrics that an expression is about."""
    return set(re.findall(r"litestream_\w+", expression))


def labels_in(expression: str) -> set[str]:
    """The labels that it selects and groups by."""
    groups = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    grouped = {label.strip() for group in groups for label in group.split(",")}
    return grouped | set(re.findall(r"[{,]\s*(\w+)\s*[=!]", expression))


def test_every_metric_and_label_is_in_a_real_scrape(
    well: list[Sample], failing: list[Sample]
) -> None:
    """None of the rules and panels asks for what no daemon has."""
    scraped = [*well, *failing]
    names = {sample.name for sample in scraped}
    labels = {label for sample in scraped for label in sample.labels} | OF_PROMETHEUS
    for expression in [*alerts_of(RULES).values(), *expressions_of(DASHBOARD)]:
        assert names_in(expression) and names_in(expression) <= names, expression
        assert labels_in(expression) <= labels, expression


def test_every_metric_of_litestream_is_in_a_real_scrape(
    well: list[Sample], failing: list[Sample]
) -> None:
    """With the same labels, so that its dashboards and alerts find what they ask for."""
    scraped = [*well, *failing]
    labels = {sample.name: set(sample.labels) for sample in scraped}
    wanted = {f"litestream_{name}": value for name, value in OF_LITESTREAM.items()}
    assert {name: labels.get(name) for name in wanted} == wanted
    values = {
        label: {s.labels[label] for s in scraped if label in s.labels}
        for label in ("mode", "status", "operation")
    }
    assert values["mode"] == {"PASSIVE", "TRUNCATE"}
    assert values["status"] == {"eligible", "not_compacted", "too_recent"}
    assert {"PUT", "GET", "LIST"} <= values["operation"]
    (db,) = {s.labels["db"] for s in well if "status" in s.labels}
    assert db == "app.db"


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    """And none of the tests is about an alert that is not there."""
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    checks = [check for test in tests for check in test.get("alert_rule_test", [])]
    fired = {check["alertname"] for check in checks if check["exp_alerts"]}
    assert fired == set(alerts_of(RULES))


def test_rules_and_their_tests_pass() -> None:
    """As Prometheus reads them."""
    checked = check_rules(RULES)
    assert f"{len(alerts_of(RULES))} rules found" in checked.stdout, checked
    tested = run_rule_tests(RULE_TESTS)
    assert tested.returncode == 0, tested


def test_rule_with_another_limit_is_noticed(tmp_path: Path) -> None:
    """The tests of the rules can fail."""
    rules = RULES.read_text()
    assert rules.count("lag_seconds > 60") == 1
    changed = tmp_path / "alerts.yml"
    changed.write_text(rules.replace("lag_seconds > 60", "lag_seconds > 600"))
    tests = tmp_path / "alerts_test.yml"
    tests.write_text(
        re.sub(r"\.\./\S*alerts\.yml", changed.name, RULE_TESTS.read_text())
    )
    tested = run_rule_tests(tests)
    assert tested.returncode != 0 and "SQLiteReplicaLags" in tested.stderr, tested


def test_expressions_of_the_dashboard_are_read(tmp_path: Path) -> None:
    """By Prometheus, as rules that record them."""
    found = expressions_of(DASHBOARD)
    rules = [{"record": f"panel:{i}", "expr": e} for i, e in enumerate(found)]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked = check_rules(path)
    assert f"{len(found)} rules found" in checked.stdout, checked


def test_nothing_fires_on_a_daemon_that_is_well(
    well: list[Sample], tmp_path: Path
) -> None:
    """Half an hour of its real scrape leaves all alerts silent."""
    tested = firing(RULES, well, {}, tmp_path)
    assert tested.returncode == 0, tested


def test_failing_replica_fires(failing: list[Sample], tmp_path: Path) -> None:
    """Half an hour of that scrape fires the alert about it."""
    tested = firing(RULES, failing, {"SQLiteReplicaFails": 1}, tmp_path)
    assert tested.returncode == 0, tested
