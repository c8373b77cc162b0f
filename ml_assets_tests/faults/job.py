"""What the harness tells a lander of the campaign to do, and what the lander leaves when it ends."""

from typing import Literal

import msgspec


class Job(msgspec.Struct, kw_only=True):
    """What a lander is to do. `name` is its own; its output goes to `<folder>/<name>.log`.

    At the `nth` time of `step` it does `act` to itself: "kill" is SIGKILL, "pause" is SIGSTOP.
    """

    name: str
    folder: str
    lake_root: str
    lake_options: dict[str, str]
    kafka: dict[str, str]
    topics: list[str]
    assignment: Literal["group", "all"] = "group"
    flush_rows: int = 200
    flush_bytes: int = 1 << 20
    flush_seconds: float = 0.2
    compact: bool = False
    step: str = ""
    nth: int = 1
    act: str = ""


class Left(msgspec.Struct):
    """What a lander writes to `<folder>/<name>.left` when it ends by itself: how, and how long SIGTERM took."""

    error: str
    seconds: float
