"""From what training and evaluation recorded to the sections of the model-risk pack."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ml_assets.database.promotions import LedgerEntry
from ml_assets.governance import Pack, render_pack
from ml_assets.governance.conditions import condition_rows
from ml_assets.governance.pack import Heading, markdown_table
from ml_assets.learning.gate import Evidence, Gain, ModelEvidence, Verdict
from ml_assets.learning.reasons import BACKGROUND_ROWS
from ml_assets.markdown import Markdown, code, text
from ml_assets.registry import CHAMPION, CandidateRun, ModelRegistry
from ml_assets.spec import UseCase

PACK_MARKDOWN, PACK_HTML = "model_risk_pack.md", "model_risk_pack.html"
INTERVALS = "metric_intervals.csv"
IMPORTANCES = "importances.csv"

_TIERS = {
    "high": "every promotion is approved by a second person; a rollback needs one",
    "medium": "the gate alone promotes; every promotion is in the ledger",
    "low": "the gate alone promotes; every promotion is in the ledger",
}


def model_risk_pack(
    registry: ModelRegistry,
    usecase: UseCase,
    run_id: str,
    evidence: Evidence,
    verdict: Verdict,
    ledger: Sequence[LedgerEntry],
    shadow: Mapping[str, Any] | None = None,
) -> Pack:
    """Return the pack of the evaluated model of a run; `shadow` is the verdict on it beside the champion, if any.

    Raises:
        PackError: a section would be empty.
    """
    run = registry.run(run_id)
    intervals, importances = (_table(registry, run_id, name) for name in (INTERVALS, IMPORTANCES))
    contents = {
        "purpose": _purpose(usecase),
        "tier": _tier(usecase),
        "data_lineage": _data_lineage(usecase, run),
        "features": _features(usecase, run),
        "training": _training(usecase, run),
        "performance": _performance(usecase, evidence, intervals),
        "calibration": _calibration(usecase, evidence, run, intervals),
        "slices": _slices(usecase, evidence),
        "explanations": _explanations(usecase, importances),
        "limits": _limits(usecase),
        "challengers": _challengers(usecase, evidence, verdict),
        "implementation": _implementation(usecase, evidence, run),
        "monitoring": _monitoring(usecase, shadow),
        "approvals": _approvals(usecase, ledger),
    }
    candidate = run.tags.get("candidate", "unknown")
    heading = Heading(usecase.title, usecase.name, candidate, run.tags.get("training_date", "unknown"), run_id)
    return render_pack(heading, contents)


def _purpose(usecase: UseCase) -> str:
    slots = ", ".join(f"{slot.name} ({slot.at:%H:%M} UTC)" for slot in usecase.slots)
    return (
        f"{usecase.description}\n\nA decision is about one {usecase.entity}, at {slots}. Outcome: "
        f"{usecase.label.description} Users act on the first {usecase.capacity} decisions of a list, by expected cost "
        f"in {usecase.currency}; the model decides nothing by itself."
    )


def _tier(usecase: UseCase) -> str:
    return f"Tier **{usecase.tier}**: {_TIERS[usecase.tier]}. Owner: `{usecase.owner}`."


def _data_lineage(usecase: UseCase, run: CandidateRun) -> str:
    versions = json.loads(run.tags.get("data_versions", "{}"))
    if not versions:
        return ""
    events = [
        {
            "event": event.name,
            "Kafka topic": event.topic,
            "what": event.description,
            "quarantined if": "; ".join(event.rules) or "not decodable",
            "looks back": f"{event.history.days} days",
        }
        for event in usecase.events
    ]
    references = [{"reference": r.name, "what": r.description, "key": ", ".join(r.key)} for r in usecase.references]
    tables = [{"Delta table": name, "version read": version} for name, version in sorted(versions.items())]
    return "\n\n".join(
        part
        for part in (
            markdown_table(events),
            markdown_table(references),
            markdown_table(tables),
            f"Code: git commit {code(run.tags.get('git_commit', 'unknown'))}, Dagster run "
            f"{code(run.tags.get('dagster_run_id', 'unknown'))}. Each landed row carries its Kafka offset; "
            "`ml-assets explain-prediction` walks back to it.",
        )
        if part
    )


def _features(usecase: UseCase, run: CandidateRun) -> str:
    rows = [
        {
            "feature": feature.name,
            "what": feature.description,
            "unit": feature.unit or "-",
            "kind": feature.kind,
            "cause": feature.cause or "-",
        }
        for feature in usecase.features
    ]
    return (
        f"Feature set {code(run.tags.get('feature_set_hash', 'unknown'))}: SQL run as of each decision time, which "
        "sees only rows that were known by then. The check `no_leak` makes some of them again before a training.\n\n"
        + markdown_table(rows)
    )


def _training(usecase: UseCase, run: CandidateRun) -> str:
    if "train_dates" not in run.tags or not run.params:
        return ""
    split, early = usecase.split, usecase.monitoring.since_change
    cut = f"{split.train_days} decision dates to train, {split.calibration_days} to calibrate, {split.test_days} unseen"
    if (since := run.params.get("learned_since")) and early is not None:
        cut = (
            f"of the decision dates since {text(since)} alone, when a change began, the last {early.test_days} are "
            f"unseen, the {early.calibration_days} before them calibrate, and the others train"
        )
    params = [{"parameter": name, "value": value} for name, value in sorted(run.params.items())]
    return (
        f"Learned from decisions of {text(run.tags['train_dates'])}, tested on "
        f"{text(run.tags.get('test_dates', 'unknown'))} (window {code(run.tags.get('window_hash', 'unknown'))}). "
        f"Cut by time: {cut}; labels known less than {split.embargo.total_seconds() / 3600:g} hours before the "
        "first test decision are left out.\n\n" + markdown_table(params)
    )


def _performance(usecase: UseCase, evidence: Evidence, intervals: pd.DataFrame) -> str:
    if evidence.challenger is None or intervals.empty:
        return ""
    with_ends = set(intervals["metric"])
    rows = [
        {"metric": r["metric"], "value": r["value"], f"{usecase.gate.confidence:.0%} interval": _range(r)}
        for r in intervals.to_dict("records")
    ]
    rest = [
        {"metric": name, "value": value}
        for name, value in sorted(evidence.challenger.metrics.items())
        if name not in with_ends and not name.startswith("calibration_error")
    ]
    return (
        f"Window {code(evidence.window_hash)}, decisions from {text(evidence.window_first_decision)} on. Intervals: "
        f"days resampled with replacement.\n\n{markdown_table(rows)}\n\nCounts, parts of the Brier score and what "
        f"follows from the work-lists, without intervals:\n\n{markdown_table(rest)}"
    )


_LEVELS = {
    "calibration": "The level is that of the same window.",
    "learned": (
        "The level is not that window's, which may lie in a stress, but that of all days learned from (calibration in "
        "the large): a shift in log-odds, by which `none` becomes `platt` with a slope of 1."
    ),
}
_REFIT = "After that, the model was fitted again on train and calibration days, and its level set anew. "


def _calibration(usecase: UseCase, evidence: Evidence, run: CandidateRun, intervals: pd.DataFrame) -> str:
    found = intervals[intervals["metric"] == "calibration_error"] if not intervals.empty else intervals
    if evidence.challenger is None or found.empty:
        return ""
    row = found.to_dict("records")[0]
    return (
        f"Method {code(run.params.get('calibration', 'unknown'))}, chosen on the calibration window by the Brier score "
        "on rows that it was not fitted on. "
        f"{_LEVELS[usecase.split.level_from]} {_REFIT if usecase.split.refit else ''}"
        f"Expected calibration error {row['value']:.4g} ({_range(row)}), limit "
        f"{usecase.gate.max_calibration_error:g}. The reliability plot is `plots/reliability.png` on the run."
    )


def _slices(usecase: UseCase, evidence: Evidence) -> str:
    rows = [
        {
            "slice": part.slice,
            "value": part.value,
            "decisions": part.n,
            "fails": part.positives,
            part.metric: part.challenger,
            f"of the {part.against}": part.reference,
            "loss": part.loss,
        }
        for part in evidence.slices
    ]
    if rows:
        limits = "; ".join(
            f"{s.name}: at most {s.max_loss:g} lost with {s.min_positives} fails" for s in usecase.gate.slices
        )
        return f"Limits: {limits}.\n\n{markdown_table(rows)}"
    return "" if usecase.gate.slices else "The use case declares no slices: its decisions are judged as one group."


def _explanations(usecase: UseCase, importances: pd.DataFrame) -> str:
    if importances.empty:
        return ""
    causes = [{"cause": c.code, "meaning": c.name, "action": c.action} for c in usecase.causes]
    said = (
        "Decisions that the team acts on carry reasons: exact Shapley values of the causes below, which share out the "
        f"log-odds of the calibrated probability against {BACKGROUND_ROWS} typical decisions.\n\n"
        + markdown_table(causes)
        if causes
        else "The use case declares no causes: its predictions carry no reasons."
    )
    top = importances.head(10).to_dict("records")
    rows = [{"feature": r["feature"], "PR-AUC lost when shuffled": float(r["loss"])} for r in top]
    return f"{said}\n\nPermutation importance on the unseen window, the first ten:\n\n{markdown_table(rows)}"


def _limits(usecase: UseCase) -> str:
    if not usecase.limits:
        return ""
    declared = "\n".join(f"- {limit}" for limit in usecase.limits)
    return (
        f"{declared}\n\nIt scores only decisions of its slots ({', '.join(s.name for s in usecase.slots)}), only with "
        "the feature set it was trained on, and only as champion. Without a champion nothing is scored."
    )


def _challengers(usecase: UseCase, evidence: Evidence, verdict: Verdict) -> str:
    models = [model for model in (evidence.challenger, evidence.rule, evidence.champion) if model is not None]
    names = (usecase.gate.metric, "roc_auc", "brier", "recall_at_capacity", "saved_per_day")
    rows = [{"model": _role(model, evidence), **{n: model.metrics.get(n) for n in names}} for model in models]
    candidates = [
        {"candidate": c.name, "what": c.description, "kind": "rule" if c.is_rule else "model"}
        for c in usecase.candidates
    ]
    gains = [_gain(f"over {who}", gain) for who, gain in _gains(evidence) if gain is not None]
    outcome = "passes" if verdict.passed else "does **not** pass"
    return "\n\n".join(
        [
            "Compared on the same unseen rows, by the code that scores in production.",
            markdown_table(candidates),
            markdown_table(rows),
            *([markdown_table(gains)] if gains else []),
            f"At registration the challenger {outcome} the gate; it is judged again at promotion.",
            markdown_table(condition_rows(verdict.conditions)),
        ]
    )


def _implementation(usecase: UseCase, evidence: Evidence, run: CandidateRun) -> str:
    serving = evidence.serving
    found = (
        f"Loaded in a fresh process, the saved model (SHA-256 {code(serving.model_hash[:16])}) gives the pipeline's "
        f"probabilities on {serving.rows} golden decisions to {_number(serving.max_abs_difference)} (limit 1e-6), one "
        f"decision in {_number(serving.latency_ms)} ms (limit {usecase.gate.max_serving_ms:g} ms)."
        if serving
        else "The saved model was **not** loaded in a fresh process; the gate counts that as no."
    )
    parity = run.metrics.get("parity_max_abs_difference")
    return (
        "Exported to ONNX; scoring unpickles nothing. Calibration lies beside the graph as numbers. Export against "
        f"pipeline at training: {_number(parity)}. {found}"
    )


def _monitoring(usecase: UseCase, shadow: Mapping[str, Any] | None) -> str:
    batch = usecase.gate.batch
    rows = [
        {"what": "business days have decisions", "where": Markdown("check `row_count` on `features`"),
         "limit": "none missing"},
        {"what": "data is fresh", "where": Markdown("check `freshness` on `features`"),
         "limit": f"a business day{_pause(usecase)}"},
        *({"what": f"bad rows of {event.name}",
           "where": Markdown(f"check `quarantine_rate` on {code(f'curated/{event.name}')}"),
           "limit": f"{event.max_quarantine_rate:.1%}"} for event in usecase.events),
        {"what": "scores are as in the calibration window",
         "where": Markdown("check `score_distribution` on `predictions`"),
         "limit": f"PSI {batch.max_psi:g}, odds of the mean times {batch.max_mean_ratio:g}, unknown categories "
         f"{batch.max_unknown:.0%}, missing values {batch.max_missing:.0%} more; else nothing is published"},
        {"what": "the champion is the one of the ledger", "where": Markdown("check `champion_is_in_ledger`"),
         "limit": "equal"},
        {"what": "scores drift", "where": Markdown("gate, `score_psi`"),
         "limit": f"{usecase.gate.max_score_psi:g}"},
        {"what": "the champion on newly matured outcomes", "where": Markdown("asset `evaluation`, each business night"),
         "limit": "a challenger that passes the gate replaces it"},
    ]  # fmt: skip
    said = (
        f"On live decisions, as of {shadow['decision_date']}: {text(shadow['sentence'])}"
        if shadow
        else "On live decisions, beside the champion: not judged yet. While it awaits approval it scores in the "
        "shadow, and each morning this page is written anew with the verdict."
    )
    return f"{said}\n\n{markdown_table(rows)}"


def _pause(usecase: UseCase) -> str:
    days = usecase.publication_pause.days
    return f", and {days} days between publications" if days else ""


def _approvals(usecase: UseCase, ledger: Sequence[LedgerEntry]) -> str:
    lines = [
        {
            "line": entry.id,
            "when": f"{entry.recorded_at:%Y-%m-%d %H:%M}",
            "what": entry.action,
            "version": f"{entry.from_version or 'none'} -> {entry.to_version}",
            "who": entry.actor,
            "why": entry.reason,
        }
        for entry in ledger
    ]
    said = markdown_table(lines) or "No version of this model has been promoted before."
    return (
        f"Tier {usecase.tier}: {_TIERS[usecase.tier]}. The ledger when this model was registered (its own promotion "
        f"comes later: `ml-assets history {usecase.name}`):\n\n{said}"
    )


def _role(model: ModelEvidence, evidence: Evidence) -> str:
    if model == evidence.challenger:
        return f"challenger, {model.name}"
    return f"rule, {model.name}" if model == evidence.rule else CHAMPION


def _gains(evidence: Evidence) -> list[tuple[str, Gain | None]]:
    return [
        ("the rule", evidence.gain_over_rule),
        ("the champion", evidence.gain_over_champion),
        *((f"the rule where {f.slice} is {f.value}, as a share of it", f.gain) for f in evidence.focuses),
    ]


def _gain(name: str, gain: Gain) -> dict[str, Any]:
    return {
        "gain": name,
        "metric": gain.metric,
        "value": gain.value,
        "low": gain.low,
        "high": gain.high,
        "confidence": f"{gain.confidence:.0%}",
        "days": gain.days,
    }


def _range(row: Mapping[Any, Any]) -> str:
    if row["low"] != row["low"]:
        return "unknown: fewer than two days"
    return f"{row['low']:.4g} to {row['high']:.4g}"


def _number(value: float | None) -> str:
    return "unknown" if value is None or value != value else f"{value:.2g}"


def _table(registry: ModelRegistry, run_id: str, name: str) -> pd.DataFrame:
    try:
        return pd.read_csv(io.StringIO(registry.read_evidence(run_id, name)))
    except FileNotFoundError:
        return pd.DataFrame()
