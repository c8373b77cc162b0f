"""Rounds of alerts follow one another, and a message is grouped by the graph that Dagster shows."""

from datetime import UTC, datetime

import dagster as dg
from dagster._core.test_utils import create_run_for_test

from ml_assets.definitions import build_definitions
from ml_assets.defs.assets.alerts import ALERTS, JOB, _runs, upstream_of
from ml_assets.defs.jobs.alerts import alerts_schedule

DEFINITIONS = build_definitions()


def test_a_round_is_left_out_while_another_is_under_way() -> None:
    """Guards rounds that pile up in the queue behind one that hangs."""
    assert alerts_schedule().cron_schedule == "*/5 * * * *"
    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(instance, scheduled_execution_time=datetime(2026, 1, 5, 7, tzinfo=UTC))
        request = alerts_schedule()(context)
        assert isinstance(request, dg.RunRequest)
        assert request.run_key is None, "each tick has its round"
        run = create_run_for_test(instance, job_name=JOB, status=dg.DagsterRunStatus.STARTED)
        skipped = alerts_schedule()(context)
        assert isinstance(skipped, dg.SkipReason)
        assert run.run_id in skipped.skip_message
        (row,) = _runs(instance, own="another").rows
        assert (row["job"], row["status"], row["started_at"]) == (JOB, "STARTED", None)
        assert not _runs(instance, own=run.run_id).rows


def test_what_an_asset_is_made_from_is_all_that_the_graph_shows_above_it() -> None:
    upstream = upstream_of(DEFINITIONS.resolve_all_asset_specs())
    above = upstream["settlement_fails/outcomes"]
    assert {"settlement_fails/predictions", "settlement_fails/features", "landing/trades"} <= above
    assert "settlement_fails/outcomes" not in above
    assert "settlement_fails/predictions" not in upstream["settlement_fails/features"]


def test_the_states_come_after_what_rules_follow() -> None:
    (spec,) = [spec for spec in DEFINITIONS.resolve_all_asset_specs() if spec.key == ALERTS]
    followed = {"/".join(dep.asset_key.path) for dep in spec.deps}
    assert {"settlement_fails/outcomes", "cns_fails/performance"} <= followed
    assert DEFINITIONS.resolve_job_def(JOB).tags["dagster/priority"] == "10"
    assert spec.freshness_policy is not None
