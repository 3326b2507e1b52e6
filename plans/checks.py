"""The checks of a preflight by name, as a site may leave them out (`ours.skip_checks`)."""

from __future__ import annotations

CHECK_NAMES = (
    "devices",
    "masks",
    "versions",
    "shared_memory",
    "locked_memory",
    "host_memory",
    "disk",
    "paths",
    "open_files",
    "numa_balancing",
    # Those that need torch: binding to cores, and the links between ranks.
    "affinity",
    "links",
)
