"""What trained and scored roles do to a batch on this rank: its shard, made known to all."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from plans.dataflow import Role
from plans.plan import Plan
from plans.values import frozen
from runtime.assembly import Engines
from runtime.batch import Sequences
from runtime.objectives import Objective
from runtime.sharing import Rows, part, share


@frozen
class Learner:
    """The engines of this rank that score and learn, and which part of a batch is theirs.

    `group` holds the ranks that learn of each other's scores; None is torch's default group.
    """

    plan: Plan
    engines: Engines
    device: torch.device
    group: dist.ProcessGroup | None = None

    def score(self, role: Role, sequences: Sequences) -> Tensor:
        """A role's output for a batch, [n, s - 1] (see ScoreEngine), on every rank of the group."""
        rows, spoken = Rows(0, 0), None
        if self.engines.holds(role):
            rows = self._shard(role, Rows(0, len(sequences)))
            local = self.engines.scorer(role).score(sequences.rows(rows.start, rows.stop))
            spoken = local if self._speaks(role) else None
        shape = (len(sequences), sequences.tokens.shape[1] - 1)
        return share(spoken, rows, shape, torch.zeros(0, device=self.device), self.group)

    def update(
        self, role: Role, sequences: Sequences, objective: Objective, step: int
    ) -> dict[str, float]:
        """An optimizer step for each mini-batch of each epoch; metrics are means over them.

        None where others hold the role.
        """
        if not self.engines.holds(role):
            return {}
        job, engine = self.plan.job, self.engines.trainer(role)
        spec = job.critic_optimizer if role is Role.CRITIC else job.optimizer
        engine.set_learning_rate(spec.lr_at(step))
        totals: dict[str, float] = {}
        for turn in range(job.batch.optimizer_steps):
            index = turn % job.batch.mini_batches
            whole = part(len(sequences), index, job.batch.mini_batches)
            rows = self._shard(role, whole)
            shard = sequences.rows(rows.start, rows.stop)
            for name, value in engine.update(shard, objective(whole, rows)).items():
                totals[name] = totals.get(name, 0.0) + value / job.batch.optimizer_steps
        prefix = "critic" if role is Role.CRITIC else "actor"
        return {f"{prefix}/{name}": value for name, value in totals.items()}

    def _shard(self, role: Role, whole: Rows) -> Rows:
        """This rank's data-parallel part of some rows, with rows that belong together in one."""
        layout, together = self.plan.placement(role).layout, self.plan.job.rows_together
        place = layout.coordinates(self.engines.rank)["dp"]
        inner = part(len(whole) // together, place, layout.dp)
        return Rows(whole.start + inner.start * together, whole.start + inner.stop * together)

    def _speaks(self, role: Role) -> bool:
        """Whether this rank hands on its shard's scores: the last stage's first tensor rank."""
        layout = self.plan.placement(role).layout
        place = layout.coordinates(self.engines.rank)
        return place["tp"] == 0 and place["pp"] == layout.pp - 1
