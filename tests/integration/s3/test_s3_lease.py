"""``lock.json`` on a real S3 server: conditions, quirks of servers, answers that get lost."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support.leaseobjects import (
    check_one_wins,
    check_replaced_by_its_tag_only,
    lease_of,
    record,
)
from support.proxy import start_proxy
from support.s3stores import open_store, through
from support.servers import S3Server

from sqlitereplica.errors import StoreError
from sqlitereplica.store import LTXStore
from sqlitereplica.store.lease import Seen
from sqlitereplica.store.leaseobject import LeaseObject, RefusedError
from sqlitereplica.store.s3 import QuietS3FileSystem

pytestmark = pytest.mark.s3


def test_lock_json_is_made_once_and_replaced_by_its_tag_only(
    s3_server: S3Server, bucket: str
) -> None:
    """The server honours conditions, is found to, and the probe leaves nothing behind."""
    store = open_store(s3_server, s3_server.url(bucket, "lease/plain"))
    lease = lease_of(store)
    assert lease.probe() is None
    last = check_replaced_by_its_tag_only(lease)
    fs = s3_server.filesystem()
    assert fs.find(f"{bucket}/lease/plain") == [f"{bucket}/lease/plain/lock.json"]
    body = json.loads(fs.cat_file(f"{bucket}/lease/plain/lock.json"))
    assert (body["generation"], body["owner"]) == (2, "h:1")
    fs.rm_file(f"{bucket}/lease/plain/lock.json")
    with pytest.raises(RefusedError):
        lease.write(record(3), last)


def test_of_many_that_replace_lock_json_at_once_one_wins(
    s3_server: S3Server, bucket: str
) -> None:
    """By If-Match, each time anew."""
    store = open_store(s3_server, s3_server.url(bucket, "lease/race"))
    check_one_wins(lease_of(store), 10)


def test_write_of_which_the_answer_is_lost_is_an_error_and_can_be_read(
    s3_server: S3Server, bucket: str
) -> None:
    """Whether botocore tries again or not: never a success that was none."""
    with start_proxy(s3_server.port) as proxy:
        store = through(proxy, s3_server, bucket, "lease/lost")
        lease = lease_of(store)
        tag = lease.write(record(1), None)
        proxy.losing = re.compile("^PUT ")
        proxy.lose_answers = 1
        with pytest.raises((RefusedError, StoreError)):
            lease.write(record(1, "again"), tag)
        assert proxy.lost == 1
        assert lease.read().record == record(1, "again")


class Forgetful(QuietS3FileSystem):
    """A server that ignores some conditions, as several do: it answers 200."""

    forgets: tuple[str, ...] = ()

    async def _call_s3(self, method: str, *rest: Any, **options: Any) -> Any:
        for name in self.forgets:
            options.pop(name, None)
        return await super()._call_s3(method, *rest, **options)


class Unquoting(QuietS3FileSystem):
    """A server that compares If-Match without quotes (radosgw 16)."""

    async def _call_s3(self, method: str, *rest: Any, **options: Any) -> Any:
        tag = options.get("IfMatch")
        if tag is not None:
            options["IfMatch"] = f'"{tag}"'
        return await super()._call_s3(method, *rest, **options)


def over(kind: type[QuietS3FileSystem], server: S3Server, where: str) -> LeaseObject:
    """The object of a replica on another kind of server."""
    fs = kind(**server.storage_options, skip_instance_cache=True)
    return lease_of(LTXStore.open(fs, path=where))


@pytest.mark.parametrize(
    ("forgets", "told"),
    [
        (("IfNoneMatch", "IfMatch"), "If-None-Match"),
        (("IfNoneMatch",), "If-None-Match"),
        (("IfMatch",), "If-Match"),
    ],
)
def test_server_that_ignores_conditions_is_found_out(
    s3_server: S3Server, bucket: str, forgets: tuple[str, ...], told: str
) -> None:
    """By trying, whatever it answers; the probe leaves nothing behind."""
    kind = type("Kind", (Forgetful,), {"forgets": forgets})
    where = f"{bucket}/lease/forgets-{len(forgets)}-{told}"
    assert told in str(over(kind, s3_server, where).probe())
    # (The server keeps the folder, which is no object.)
    assert not [n for n in s3_server.filesystem().find(where) if "probe" in n]


def test_server_that_wants_tags_without_quotes_gets_them(
    s3_server: S3Server, bucket: str
) -> None:
    """The probe finds out, and stale tags are refused all the same."""
    lease = over(Unquoting, s3_server, f"{bucket}/lease/unquoted")
    assert lease.probe() is None
    first = lease.write(record(1), None)
    second = lease.write(record(2), first)
    with pytest.raises(RefusedError):
        lease.write(record(3), first)
    assert lease.read() == Seen(record(2), second)


def test_missing_bucket_is_an_error_and_no_free_lease(s3_server: S3Server) -> None:
    """Nothing is there that could be held."""
    lease = lease_of(open_store(s3_server, s3_server.url("no-such-bucket", "x")))
    with pytest.raises(StoreError):
        lease.read()
    with pytest.raises(StoreError):
        lease.write(record(1), None)
    with pytest.raises(StoreError):
        lease.probe()
