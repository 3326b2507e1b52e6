"""What each rank walks in a step: the phases in order, and where all ranks meet.

Fixed by the plan, and the same in a rehearsal and in a run.
"""

from __future__ import annotations

from itertools import groupby

from plans.dataflow import SWITCH, Stage
from plans.placement import ResourcePool
from plans.plan import PhasePlan, Plan
from plans.values import frozen


@frozen
class Movement:
    """Phases that follow one another.

    All ranks walk each of them and meet after it; `apart`, every pool walks those of its own
    roles, at the same time as the others, and all meet at the end.
    """

    phases: tuple[PhasePlan, ...]
    apart: bool

    @property
    def name(self) -> str:
        return "+".join(phase.name for phase in self.phases)

    @property
    def deadline_seconds(self) -> float:
        """The most that a pool may take for its phases."""
        pools = {phase.pool for phase in self.phases}
        return max(
            sum(phase.deadline_seconds for phase in self.phases if phase.pool == pool)
            for pool in pools
        )

    def walked(self, pool: ResourcePool) -> tuple[PhasePlan, ...]:
        """The phases that the ranks of a pool walk."""
        return tuple(one for one in self.phases if not self.apart or one.pool == pool.name)


def movements(plan: Plan) -> tuple[Movement, ...]:
    """The movements of a step, in order.

    Updates depend on no other pool. All else hands what it found to every rank, unless the
    rollout is a step ahead: then it has nothing to do with the others until the next switch.
    """
    return tuple(
        Movement(phases=tuple(phases), apart=apart)
        for apart, phases in groupby(plan.phases, lambda phase: _apart(plan, phase))
    )


def _apart(plan: Plan, phase: PhasePlan) -> bool:
    ahead = bool(plan.job.algorithm.lag) and phase.name != SWITCH
    return plan.split and (ahead or phase.stage == Stage.UPDATE)
