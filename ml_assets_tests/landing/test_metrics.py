"""Metrics and probes of the lander, over HTTP."""

import urllib.error
import urllib.request

import pytest

from ml_assets.landing.metrics import Health, LanderMetrics
from ml_assets.probes import serve


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return Health(clock)


def test_a_loop_that_does_not_turn_is_not_alive(health, clock):
    assert not health.live()[0]
    health.beat()
    assert health.live()[0]
    clock.now += 61
    assert health.live() == (False, "no turn for 61 s")
    assert not health.ready()[0]


def test_ready_is_who_has_a_broker_and_no_trouble(health):
    health.beat()
    assert health.ready() == (False, "the broker has not answered yet")
    health.started()
    assert health.ready() == (True, "landing")
    health.trouble("topic trades", "cannot be committed: the disk is full")
    assert health.ready() == (False, "topic trades: cannot be committed: the disk is full")
    assert health.live()[0], "a full disk is no reason to be killed"
    health.trouble("topic trades")
    assert health.ready()[0]


def test_probes_and_metrics_are_served(health):
    metrics = LanderMetrics()
    metrics.rows.labels("trades").inc(7)
    server = serve(metrics.registry, health, 0, "127.0.0.1")
    try:

        def get(path):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        assert get("/live") == (503, "no turn for inf s\n")
        health.beat()
        assert get("/live") == (200, "turning\n")
        assert get("/ready") == (503, "the broker has not answered yet\n")
        health.started()
        assert get("/ready") == (200, "landing\n")
        status, text = get("/metrics")
        assert status == 200
        assert 'lander_rows_total{topic="trades"} 7.0' in text
        assert get("/")[0] == 404
    finally:
        server.shutdown()
        server.server_close()
