"""The shop's own tests, by Django's runner: nothing of them may be replicated."""

from __future__ import annotations

import json
from urllib.request import urlopen

from django.test import LiveServerTestCase, TestCase

from shop.models import Customer
from sqlitereplica.integrations.django import replicator


class OrderTests(TestCase):
    """By the test client."""

    def test_order(self) -> None:
        """An order is taken, and is in no replica."""
        reply = self.client.post("/order/c1-1")
        assert reply.status_code == 200
        assert replicator().status().state == "stopped"


class LiveTests(LiveServerTestCase):
    """By a real server."""

    def test_status(self) -> None:
        """A server of tests replicates nothing either."""
        Customer.objects.create(name="c1")
        with urlopen(f"{self.live_server_url}/status", timeout=30) as reply:
            assert json.load(reply)["state"] == "stopped"
