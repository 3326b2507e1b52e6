"""The weight switch, decided at plan time: which box of which tensor comes from where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReshardSummary:
    """What the plan promises of the switch; the ranks rebuild the schedule and compare its digest.

    Bytes are per rank, the largest over all ranks; `bound_bytes` is the least any schedule
    could receive with this rank order.
    """

    schedule_digest: str
    alias_bytes: int
    local_bytes: int
    received_bytes: int
    bound_bytes: int
    staging_bytes: int
