"""A guest book in Flask, made by a factory.

The environment says where its folder (``GUESTBOOK``) and replica (``GUESTBOOK_REPLICA``) are.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

from flask import Flask, current_app, jsonify, request
from flask.typing import ResponseReturnValue

from sqlitereplica.integrations.flask import SQLiteReplica

__all__ = ["create_app", "replication"]

replication = SQLiteReplica()


def create_app() -> Flask:
    """The application."""
    app = Flask("guestbook", instance_path=os.environ["GUESTBOOK"])
    app.config["SQLITEREPLICA"] = {
        "database": "guests.db",
        "replicas": os.environ["GUESTBOOK_REPLICA"],
        "restore": "if-missing",
        "health": {"max_lag": 1.0},
        "sync_interval": 0.2,
    }
    replication.init_app(app)
    app.add_url_rule("/sign/<name>", view_func=sign, methods=["POST"])
    app.add_url_rule("/status", view_func=status)
    app.add_url_rule("/healthz", view_func=replication.health)
    return app


def connect() -> sqlite3.Connection:
    """A connection for one request."""
    path = os.path.join(current_app.instance_path, "guests.db")
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table if not exists guest(id integer primary key, name)")
    return connection


def sign(name: str) -> ResponseReturnValue:
    """Add a guest; with ``?durable`` the answer says that it cannot be lost."""
    with closing(connect()) as connection:
        added = connection.execute("insert into guest(name) values(?)", (name,))
        number = added.lastrowid
    if "durable" in request.args:
        replication.replicator.sync(timeout=60)
    return jsonify(id=number, pid=os.getpid())


def status() -> ResponseReturnValue:
    """How it is."""
    now = replication.replicator.status()
    with closing(connect()) as connection:
        count = connection.execute("select count(*) from guest").fetchone()[0]
    return jsonify(
        pid=os.getpid(),
        count=count,
        state=now.state,
        by=now.pid,
        txid=now.txid,
    )
