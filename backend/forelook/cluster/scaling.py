"""How many replicas there should be: as many as keep their devices busy for the wanted share of the time.

Open connections say little: most editors are open and idle.
"""

from __future__ import annotations

from typing import Any

BUSY = "busy"
"""The metric that each replica reports: the share of the time in which its device worked for requests."""


class BusySharePolicy:
    """A policy for Ray Serve, which applies delays and limits to its answer.

    Args:
        busy_share: the wanted share.
    """

    def __init__(self, busy_share: float) -> None:
        self._busy_share = busy_share

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """The wanted number of replicas, and no state; ``context`` is Ray's ``AutoscalingContext``."""
        shares = (context.aggregated_metrics or {}).get(BUSY) or {}
        if not shares:
            return context.target_num_replicas, {}
        return sum(shares.values()) / self._busy_share, {}
