"""What the scoring service lost of its answers, told to the database: see `models.LostAnswers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, text

from ml_assets.database.connect import begin


def add_lost_answers(where: Engine | str, service: str, losses: Mapping[tuple[str, Any], int]) -> None:
    """Add a row for each topic and reason, all or none; by a function, since the service may write nothing itself."""
    call = text("SELECT public.answers_lost(:service, :topic, :why, :number)")
    with begin(where) as connection:
        for (topic, why), number in losses.items():
            connection.execute(call, {"service": service, "topic": topic, "why": why, "number": number})
