"""Canaries are lines of the ledger: a version answers for a share of the entities until a person or the guard ends it.

The guard is the scoring service, which only reads otherwise: it may call a function that ends the canary that runs.
"""

from importlib import import_module

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_BEFORE = import_module("ml_assets.database.migrations.versions.0004_ledger_identity")
_PATH = _BEFORE._PATH
_CHECKS = {
    "action": "action IN ('registered', 'requested', 'declined', 'promoted', 'rolled_back', 'restored', 'canary', "
    "'canary_ended')",
    "approved": "action NOT IN ('promoted', 'canary') OR NOT needs_approval OR (request_id IS NOT NULL AND is_person)",
    "evidence": "action NOT IN ('requested', 'promoted', 'canary') OR evidence_hash IS NOT NULL",
    "share": "(action <> 'canary' OR share IS NOT NULL) AND "
    "(share IS NULL OR (action IN ('requested', 'canary') AND share > 0 AND share < 1))",
}
_CHECKS_BEFORE = {
    "action": _BEFORE._ACTIONS,
    "approved": "action <> 'promoted' OR NOT needs_approval OR (request_id IS NOT NULL AND is_person)",
    "evidence": "action NOT IN ('requested', 'promoted') OR evidence_hash IS NOT NULL",
}
_JUDGE = f"""
CREATE OR REPLACE FUNCTION public.promotions_judge_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER {_PATH} AS $$
DECLARE
    tier text;
    champion public.promotions%ROWTYPE;
    newest public.promotions%ROWTYPE;
    entered public.promotions%ROWTYPE;
    asked public.promotions%ROWTYPE;
    why text;
BEGIN
    PERFORM public.promotions_hold(NEW.use_case);
    SELECT t.tier INTO tier FROM public.use_case_tiers t WHERE t.use_case = NEW.use_case;
    SELECT * INTO champion FROM public.promotions p
        WHERE p.use_case = NEW.use_case AND p.action IN ('promoted', 'rolled_back', 'restored')
        ORDER BY p.id DESC LIMIT 1;
    SELECT * INTO newest FROM public.promotions p
        WHERE p.use_case = NEW.use_case
            AND p.action IN ('canary', 'canary_ended', 'promoted', 'rolled_back', 'restored')
        ORDER BY p.id DESC LIMIT 1;
    NEW.recorded_at := clock_timestamp();
    NEW.database_user := session_user;
    NEW.from_version := CASE WHEN NEW.action <> 'registered' THEN champion.to_version END;
    NEW.needs_approval := tier = 'high' AND NEW.action IN ('requested', 'declined', 'promoted', 'canary');
    IF NEW.is_person THEN
        NEW.actor := public.promotions_person(NEW.actor);
    END IF;

    IF tier IS NULL THEN
        why := format('the tier of %s is not declared: run `ml-assets migrate` with the role that migrates',
            NEW.use_case);
    ELSIF NEW.is_person AND (NEW.actor !~ '^[a-z0-9][a-z0-9 ._@+''-]*$' OR NEW.actor LIKE 'dagster run%') THEN
        why := format('%s is no name of a person: use letters from a to z, digits, spaces and . _ @ + - only',
            NEW.actor);
    ELSIF NEW.mlflow_run_id IS NULL OR NEW.mlflow_run_id = '' OR NEW.model_hash IS NULL OR NEW.evidence_hash IS NULL
        OR NEW.model_hash !~ '^[0-9a-f]{{64}}$' OR NEW.evidence_hash !~ '^[0-9a-f]{{64}}$' THEN
        why := 'a line names the MLflow run, and the SHA-256 of the model and of its evidence';
    ELSIF NEW.action IN ('declined', 'rolled_back', 'restored') AND NOT NEW.is_person THEN
        why := format('%s is for a person', NEW.action);
    ELSIF NEW.request_id IS NOT NULL AND NEW.action NOT IN ('declined', 'promoted', 'canary') THEN
        why := 'only an approval or a refusal answers a request';
    END IF;

    IF why IS NULL AND NEW.action IN ('requested', 'promoted', 'canary') THEN
        SELECT * INTO entered FROM public.promotions p
            WHERE p.use_case = NEW.use_case AND p.action = 'registered' AND p.mlflow_run_id = NEW.mlflow_run_id
            ORDER BY p.id DESC LIMIT 1;
        IF entered.id IS NULL THEN
            why := format('the model of run %s has not been registered in the ledger', NEW.mlflow_run_id);
        ELSIF (entered.model_hash, entered.evidence_hash, entered.to_version)
            <> (NEW.model_hash, NEW.evidence_hash, NEW.to_version) THEN
            why := format('the model of run %s, its evidence or its version has changed since it was registered',
                NEW.mlflow_run_id);
        ELSIF NOT NEW.is_person AND EXISTS (
            SELECT FROM public.promotions taken
            WHERE taken.use_case = NEW.use_case AND taken.action = 'rolled_back'
                AND taken.from_run_id = NEW.mlflow_run_id
                AND NOT EXISTS (
                    SELECT FROM public.promotions again
                    WHERE again.use_case = NEW.use_case AND again.mlflow_run_id = NEW.mlflow_run_id
                        AND again.id > taken.id AND again.action IN ('promoted', 'rolled_back'))) THEN
            why := format('the model of run %s was rolled back; only a person promotes it again', NEW.mlflow_run_id);
        ELSIF NOT NEW.is_person AND EXISTS (
            SELECT FROM public.promotions taken
            WHERE taken.use_case = NEW.use_case AND taken.action = 'canary_ended' AND NOT taken.is_person
                AND taken.mlflow_run_id = NEW.mlflow_run_id
                AND NOT EXISTS (
                    SELECT FROM public.promotions again
                    WHERE again.use_case = NEW.use_case AND again.mlflow_run_id = NEW.mlflow_run_id
                        AND again.id > taken.id AND again.action IN ('canary', 'canary_ended', 'promoted',
                        'rolled_back', 'restored'))) THEN
            why := format('the canary of run %s was taken back; only a person promotes it', NEW.mlflow_run_id);
        ELSIF NEW.share IS NOT NULL AND champion.id IS NULL THEN
            why := format('%s has no champion beside which a canary would run', NEW.use_case);
        ELSIF NEW.share IS NOT NULL AND champion.mlflow_run_id = NEW.mlflow_run_id THEN
            why := format('run %s is champion: it is no canary', NEW.mlflow_run_id);
        END IF;
    ELSIF why IS NULL AND NEW.action = 'registered' AND EXISTS (
        SELECT FROM public.promotions p
        WHERE p.use_case = NEW.use_case AND p.mlflow_run_id = NEW.mlflow_run_id AND p.model_hash <> NEW.model_hash) THEN
        why := format('the model of run %s has changed since it was registered', NEW.mlflow_run_id);
    ELSIF why IS NULL AND NEW.action = 'canary_ended' THEN
        IF newest.action IS DISTINCT FROM 'canary'
            OR (newest.to_version, newest.mlflow_run_id, newest.model_hash, newest.evidence_hash)
            IS DISTINCT FROM (NEW.to_version, NEW.mlflow_run_id, NEW.model_hash, NEW.evidence_hash) THEN
            why := format('version %s, run %s, is in no canary', NEW.to_version, NEW.mlflow_run_id);
        END IF;
    ELSIF why IS NULL AND NEW.action IN ('rolled_back', 'restored') THEN
        -- A line from before this revision has no run: there the evidence tells which model it was.
        IF NOT EXISTS (
            SELECT FROM public.promotions p
            WHERE p.use_case = NEW.use_case AND p.action = 'promoted' AND p.evidence_hash = NEW.evidence_hash
                AND CASE WHEN p.mlflow_run_id IS NULL THEN p.to_version = NEW.to_version
                    ELSE (p.mlflow_run_id, p.model_hash) = (NEW.mlflow_run_id, NEW.model_hash) END) THEN
            why := format('version %s, run %s, has never been champion with this model and evidence',
                NEW.to_version, NEW.mlflow_run_id);
        ELSIF NEW.action = 'rolled_back' AND champion.mlflow_run_id = NEW.mlflow_run_id THEN
            why := format('run %s is champion already', NEW.mlflow_run_id);
        ELSIF NEW.action = 'restored' AND NOT (CASE WHEN champion.mlflow_run_id IS NULL
            THEN champion.to_version = NEW.to_version
            ELSE (champion.mlflow_run_id, champion.model_hash) = (NEW.mlflow_run_id, NEW.model_hash) END) THEN
            why := format('the champion is version %s: only that is restored', champion.to_version);
        END IF;
    END IF;

    IF why IS NULL AND NEW.request_id IS NOT NULL THEN
        SELECT * INTO asked FROM public.promotions p
            WHERE p.use_case = NEW.use_case AND p.action NOT IN ('registered', 'canary_ended')
                AND (p.action <> 'canary' OR p.request_id IS NOT NULL)
            ORDER BY p.id DESC LIMIT 1;
        IF asked.id IS DISTINCT FROM NEW.request_id OR asked.action <> 'requested'
            OR (asked.to_version, asked.mlflow_run_id) IS DISTINCT FROM (NEW.to_version, NEW.mlflow_run_id) THEN
            why := format('row %s is no open request for version %s of %s',
                NEW.request_id, NEW.to_version, NEW.use_case);
        ELSIF (asked.model_hash, asked.evidence_hash) IS DISTINCT FROM (NEW.model_hash, NEW.evidence_hash) THEN
            why := format('row %s asks for another model or on other evidence', NEW.request_id);
        ELSIF NEW.action <> 'declined' AND asked.share IS DISTINCT FROM NEW.share THEN
            why := format('row %s asks for %s', NEW.request_id,
                coalesce('a canary with the share ' || asked.share, 'a promotion, and no canary'));
        ELSIF NEW.action IN ('promoted', 'canary')
            AND public.promotions_letters(asked.actor) = public.promotions_letters(NEW.actor) THEN
            why := format('%s has asked for this: another person approves it', NEW.actor);
        ELSIF NEW.action IN ('promoted', 'canary') AND NEW.needs_approval AND asked.database_user = session_user
            AND NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = session_user) THEN
            why := format(
                'the login %s has asked for this: another person approves it by a login of their own',
                session_user);
        END IF;
    END IF;

    IF why IS NOT NULL THEN
        RAISE EXCEPTION '%', why USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    NEW.from_run_id := CASE WHEN NEW.action <> 'registered' THEN champion.mlflow_run_id END;
    RETURN NEW;
END $$
"""
# Asked twice: a caller that has nothing to end holds nobody up.
_END = f"""
CREATE FUNCTION public.promotions_end_canary(line bigint, why text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER {_PATH} AS $$
DECLARE
    running public.promotions%ROWTYPE;
    made bigint;
BEGIN
    FOR turn IN 1..2 LOOP
        SELECT * INTO running FROM public.promotions p WHERE p.id = line AND p.action = 'canary' AND NOT EXISTS (
            SELECT FROM public.promotions later
            WHERE later.use_case = p.use_case AND later.id > p.id
                AND later.action IN ('canary', 'canary_ended', 'promoted', 'rolled_back', 'restored'));
        IF running.id IS NULL THEN
            RETURN NULL;
        END IF;
        PERFORM public.promotions_hold(running.use_case);
    END LOOP;
    INSERT INTO public.promotions (use_case, action, to_version, mlflow_run_id, model_hash, evidence_hash, actor,
        is_person, reason)
    VALUES (running.use_case, 'canary_ended', running.to_version, running.mlflow_run_id, running.model_hash,
        running.evidence_hash, 'canary guard', false, left(why, 2000))
    RETURNING id INTO made;
    RETURN made;
END $$
"""


def _check(checks: dict[str, str]) -> None:
    for name, condition in checks.items():
        op.create_check_constraint(op.f(f"ck_promotions_{name}"), "promotions", condition)


def _drop(checks: dict[str, str]) -> None:
    for name in checks:
        op.drop_constraint(op.f(f"ck_promotions_{name}"), "promotions")


def upgrade() -> None:
    """Apply."""
    op.add_column("promotions", sa.Column("share", sa.Double()))
    _drop(_CHECKS_BEFORE)
    _check(_CHECKS)
    op.execute(_JUDGE)
    op.execute(_END)
    op.execute("REVOKE ALL ON FUNCTION public.promotions_end_canary(bigint, text) FROM PUBLIC")


def downgrade() -> None:
    """Take back. Lines about canaries are dropped, and requests for them with their answers."""
    op.execute("DROP FUNCTION public.promotions_end_canary(bigint, text)")
    op.execute(_BEFORE._JUDGE)
    op.execute("ALTER TABLE promotions DISABLE TRIGGER promotions_append_only")
    op.execute(
        "DELETE FROM promotions WHERE action IN ('canary', 'canary_ended') "
        "OR request_id IN (SELECT id FROM promotions WHERE action = 'requested' AND share IS NOT NULL)"
    )
    op.execute("DELETE FROM promotions WHERE share IS NOT NULL")
    op.execute("ALTER TABLE promotions ENABLE TRIGGER promotions_append_only")
    _drop(_CHECKS)
    _check(_CHECKS_BEFORE)
    op.drop_column("promotions", "share")
