"""The ledger names models by run and hashes, knows each use case's tier, and judges every line by itself.

Lines from before have neither run nor hash. They stay as they are. The champion that such a line made does not score
until a person confirms it: `ml-assets rollback <use case> --to <its version> --reason ...` adds a line with both.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ACTIONS = "action IN ('registered', 'requested', 'declined', 'promoted', 'rolled_back', 'restored')"
_ACTIONS_BEFORE = "action IN ('requested', 'declined', 'promoted', 'rolled_back', 'restored')"
# Functions name schemas, and look for nothing in a temporary one before the system's own.
_PATH = "SET search_path = pg_catalog, pg_temp"
# Whoever decides on a use case's champion waits for the one before. The row is changed, so that a transaction with an
# older snapshot fails instead of judging by what was. A reader may not call it; the backup may.
_HOLD = f"""
CREATE FUNCTION public.promotions_hold(decided text) RETURNS void
LANGUAGE sql SECURITY DEFINER {_PATH} AS $$
    INSERT INTO public.promotion_holds AS held (use_case, times) VALUES (decided, 1)
    ON CONFLICT (use_case) DO UPDATE SET times = held.times + 1
$$
"""
# One spelling of a person: lower case, single spaces. Compared are the letters and digits alone.
_PERSON = f"""
CREATE FUNCTION public.promotions_person(name text) RETURNS text
LANGUAGE sql IMMUTABLE {_PATH} AS $$
    SELECT lower(btrim(regexp_replace(normalize(name, NFKC), '\\s+', ' ', 'g')))
$$
"""
_LETTERS = f"""
CREATE FUNCTION public.promotions_letters(name text) RETURNS text
LANGUAGE sql IMMUTABLE {_PATH} AS $$
    SELECT regexp_replace(lower(normalize(name, NFKC)), '[^a-z0-9]', '', 'g')
$$
"""
_REFUSE = f"""
CREATE OR REPLACE FUNCTION public.promotions_refuse_change() RETURNS trigger LANGUAGE plpgsql {_PATH} AS $$
BEGIN
    RAISE EXCEPTION 'promotions is append-only: % is refused', TG_OP
        USING ERRCODE = 'integrity_constraint_violation', HINT = 'Add a row that corrects the earlier one.';
END $$
"""
_JUDGE = f"""
CREATE OR REPLACE FUNCTION public.promotions_judge_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER {_PATH} AS $$
DECLARE
    tier text;
    champion public.promotions%ROWTYPE;
    entered public.promotions%ROWTYPE;
    asked public.promotions%ROWTYPE;
    why text;
BEGIN
    PERFORM public.promotions_hold(NEW.use_case);
    SELECT t.tier INTO tier FROM public.use_case_tiers t WHERE t.use_case = NEW.use_case;
    SELECT * INTO champion FROM public.promotions p
        WHERE p.use_case = NEW.use_case AND p.action IN ('promoted', 'rolled_back', 'restored')
        ORDER BY p.id DESC LIMIT 1;
    NEW.recorded_at := clock_timestamp();
    NEW.database_user := session_user;
    NEW.from_version := CASE WHEN NEW.action <> 'registered' THEN champion.to_version END;
    NEW.needs_approval := tier = 'high' AND NEW.action IN ('requested', 'declined', 'promoted');
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
    ELSIF NEW.request_id IS NOT NULL AND NEW.action NOT IN ('declined', 'promoted') THEN
        why := 'only an approval or a refusal answers a request';
    END IF;

    IF why IS NULL AND NEW.action IN ('requested', 'promoted') THEN
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
        END IF;
    ELSIF why IS NULL AND NEW.action = 'registered' AND EXISTS (
        SELECT FROM public.promotions p
        WHERE p.use_case = NEW.use_case AND p.mlflow_run_id = NEW.mlflow_run_id AND p.model_hash <> NEW.model_hash) THEN
        why := format('the model of run %s has changed since it was registered', NEW.mlflow_run_id);
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
            WHERE p.use_case = NEW.use_case AND p.action <> 'registered'
            ORDER BY p.id DESC LIMIT 1;
        IF asked.id IS DISTINCT FROM NEW.request_id OR asked.action <> 'requested'
            OR (asked.to_version, asked.mlflow_run_id) IS DISTINCT FROM (NEW.to_version, NEW.mlflow_run_id) THEN
            why := format('row %s is no open request to promote version %s of %s',
                NEW.request_id, NEW.to_version, NEW.use_case);
        ELSIF (asked.model_hash, asked.evidence_hash) IS DISTINCT FROM (NEW.model_hash, NEW.evidence_hash) THEN
            why := format('row %s asks for another model or on other evidence', NEW.request_id);
        ELSIF NEW.action = 'promoted'
            AND public.promotions_letters(asked.actor) = public.promotions_letters(NEW.actor) THEN
            why := format('%s has requested this promotion: another person approves it', NEW.actor);
        ELSIF NEW.action = 'promoted' AND NEW.needs_approval AND asked.database_user = session_user
            AND NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = session_user) THEN
            why := format(
                'the login %s has requested this promotion: another person approves it by a login of their own',
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
_JUDGE_BEFORE = """
CREATE OR REPLACE FUNCTION public.promotions_judge_row() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    asked public.promotions%ROWTYPE;
BEGIN
    NEW.recorded_at := clock_timestamp();
    NEW.database_user := session_user;
    IF NEW.request_id IS NOT NULL THEN
        SELECT * INTO asked FROM public.promotions WHERE id = NEW.request_id;
        IF asked.id IS NULL OR asked.action <> 'requested'
            OR (asked.use_case, asked.to_version) <> (NEW.use_case, NEW.to_version) THEN
            RAISE EXCEPTION 'row % is no request to promote version % of %',
                NEW.request_id, NEW.to_version, NEW.use_case USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF asked.actor = NEW.actor AND NEW.action = 'promoted' THEN
            RAISE EXCEPTION '% has requested this promotion: another person approves it', NEW.actor
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
    END IF;
    RETURN NEW;
END $$
"""
_FUNCTIONS = ("promotions_hold(text)", "promotions_person(text)", "promotions_letters(text)")


def upgrade() -> None:
    """Apply."""
    for column in ("mlflow_run_id", "model_hash", "from_run_id"):
        op.add_column("promotions", sa.Column(column, sa.Text()))
    op.drop_constraint(op.f("ck_promotions_action"), "promotions")
    op.create_check_constraint(op.f("ck_promotions_action"), "promotions", _ACTIONS)
    op.create_table(
        "use_case_tiers",
        sa.Column("use_case", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("use_case", name="pk_use_case_tiers"),
        sa.CheckConstraint("tier IN ('low', 'medium', 'high')", name=op.f("ck_use_case_tiers_tier")),
    )
    op.create_table(
        "promotion_holds",
        sa.Column("use_case", sa.Text(), nullable=False),
        sa.Column("times", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("use_case", name="pk_promotion_holds"),
    )
    for statement in (_HOLD, _PERSON, _LETTERS, _REFUSE, _JUDGE):
        op.execute(statement)
    for function in (*_FUNCTIONS, "promotions_judge_row()", "promotions_refuse_change()"):
        op.execute(f"REVOKE ALL ON FUNCTION public.{function} FROM PUBLIC")


def downgrade() -> None:
    """Take back. Lines that say `registered` are dropped, and with them what only they know: the hash of each model."""
    op.execute(_JUDGE_BEFORE)
    for function in _FUNCTIONS:
        op.execute(f"DROP FUNCTION public.{function}")
    op.drop_table("promotion_holds")
    op.drop_table("use_case_tiers")
    op.execute("ALTER TABLE promotions DISABLE TRIGGER promotions_append_only")
    op.execute("DELETE FROM promotions WHERE action = 'registered'")
    op.execute("ALTER TABLE promotions ENABLE TRIGGER promotions_append_only")
    op.drop_constraint(op.f("ck_promotions_action"), "promotions")
    op.create_check_constraint(op.f("ck_promotions_action"), "promotions", _ACTIONS_BEFORE)
    for column in ("from_run_id", "model_hash", "mlflow_run_id"):
        op.drop_column("promotions", column)
