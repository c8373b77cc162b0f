"""The sensor on reference files: what was dropped since the last tick, and which dates it changes."""

from collections.abc import Iterator

import dagster as dg
import msgspec

from ml_assets.defs.common import key
from ml_assets.defs.jobs import feature_keys, job_name
from ml_assets.defs.resources import Platform
from ml_assets.defs.sensors.cursor import remember, remembered
from ml_assets.defs.sensors.landed import dates_seeing_more, digest, landed_partitions, requests_of
from ml_assets.lake import reference_table
from ml_assets.landing.landed import Change, Landed, look
from ml_assets.landing.reference import reference_files
from ml_assets.lifecycle.ingestion import new_reference
from ml_assets.spec import UseCase


class Cursor(msgspec.Struct, frozen=True):
    """What the last tick saw: by reference and file, a fingerprint of its content."""

    files: dict[str, dict[str, str]] = {}


def reference_files_sensor(usecase: UseCase) -> dg.SensorDefinition:
    """Return the sensor that loads new reference files, and makes again the decisions that should have known them."""

    @dg.sensor(
        name=f"{usecase.name}_reference_files",
        job_name=job_name(usecase, "ingest"),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Looks for new or changed reference files of {usecase.name} in their folder or S3 prefix, loads them, and "
            "makes features again from the time on at which they were published."
        ),
    )
    def reference_files_of(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
        before = remembered(context, Cursor)
        root = platform.settings.reference_uri
        files = {spec.name: reference_files(root, usecase.name, spec) for spec in usecase.references}
        changed = [name for name, those in files.items() if those and those != before.files.get(name, {})]
        if not changed:
            return dg.SkipReason("no reference file is new")
        landed, _ = look(platform.lake, usecase.events)
        loaded = all(platform.lake.version(reference_table(usecase, spec)) is not None for spec in usecase.references)
        if not loaded or not any(landed.landed.values()):
            return dg.SkipReason("nothing has been ingested yet; the first ingestion loads the reference files")
        remember(context, Cursor(files))
        return dg.SensorResult(run_requests=list(_plan(usecase, platform, changed, files, landed)))

    return reference_files_of


def _plan(
    usecase: UseCase, platform: Platform, changed: list[str], files: dict[str, dict[str, str]], landed: Landed
) -> Iterator[dg.RunRequest]:
    new = new_reference(platform.lake, usecase, changed, platform.settings.reference_uri)
    references = [key(usecase, "reference", name) for name in changed]
    version = msgspec.json.encode({name: sorted(files[name].items()) for name in changed}).decode()
    if new.known_from is None:  # the same rows in other files
        if new.bad:  # and what cannot be used, so that somebody sees it
            run_key = f"{usecase.name}:reference:{digest([version])}"
            yield dg.RunRequest(run_key=run_key, asset_selection=references)
        return
    newest = max(landed_partitions(usecase, landed), default=usecase.first_partition)
    dates = dates_seeing_more(usecase, Change((), new.known_from), newest) or [newest]
    yield from requests_of(usecase, "reference", [*references, *feature_keys(usecase)], dates, version)
