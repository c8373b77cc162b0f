"""What the Kubernetes Job of a run may use. On one machine the tags mean nothing.

Runs that are started in the UI by selecting assets do not carry the tags of a job; the launcher's defaults in
k8s/base/dagster.yaml are for them, and as large as the largest here.
"""

from typing import Any, Literal

PodKind = Literal["ingest", "retrain", "score", "monitor", "report", "stages", "maintenance", "alerts"]

CONFIG_TAG = "dagster-k8s/config"

# CPU and memory that are asked for, memory that is the limit, and the longest that a run may take, in seconds.
_NEEDS: dict[PodKind, tuple[str, str, str, int]] = {
    "ingest": ("250m", "768Mi", "2Gi", 3600),
    "retrain": ("500m", "1Gi", "4Gi", 4 * 3600),
    "score": ("250m", "768Mi", "2Gi", 3600),
    "monitor": ("250m", "768Mi", "2Gi", 3600),
    "report": ("250m", "512Mi", "2Gi", 1800),
    "stages": ("100m", "512Mi", "2Gi", 1800),
    "maintenance": ("100m", "512Mi", "1Gi", 3600),
    "alerts": ("100m", "512Mi", "1Gi", 900),
}
_CPU_LIMIT = "2"


def pod_tags(kind: PodKind) -> dict[str, Any]:
    """Return the tags with which `K8sRunLauncher` sizes the Job of a run."""
    cpu, memory, memory_limit, seconds = _NEEDS[kind]
    return {
        CONFIG_TAG: {
            "container_config": {
                "resources": {
                    "requests": {"cpu": cpu, "memory": memory},
                    "limits": {"cpu": _CPU_LIMIT, "memory": memory_limit},
                }
            },
            "job_spec_config": {"active_deadline_seconds": seconds},
        },
        "dagster/max_runtime": seconds - 60,  # Dagster ends it first, so that the run tells why
    }
