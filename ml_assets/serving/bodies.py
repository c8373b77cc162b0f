"""The bodies of requests, with their limits. The decoder and the OpenAPI document are both made from them."""

from typing import Annotated

import msgspec

MOST_ENTITIES, MOST_EXPLAINED, MOST_WHAT_IFS = 10_000, 100, 100
_Named = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class ScoreRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Ids of open decisions, or what-if requests, each a mapping from the names of events to their fields."""

    entity_ids: Annotated[list[_Named], msgspec.Meta(min_length=1, max_length=MOST_ENTITIES)] | None = None
    what_if: (
        Annotated[
            list[Annotated[dict[str, msgspec.Raw], msgspec.Meta(min_length=1)]],
            msgspec.Meta(min_length=1, max_length=MOST_WHAT_IFS),
        ]
        | None
    ) = None


class ExplainRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Ids of open decisions."""

    entity_ids: Annotated[list[_Named], msgspec.Meta(min_length=1, max_length=MOST_EXPLAINED)]
