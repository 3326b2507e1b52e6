"""What can be run here, and what can only be estimated: said before a plan is made."""

from __future__ import annotations

from plans.dataflow import unplanned, unrunnable
from plans.model import ModelSpec
from plans.source import PlanError
from plans.spec import JobSpec


def check_runnable(job: JobSpec, model: ModelSpec) -> None:
    """PlanError when no engine here runs the model, or the runtime not all that the job asks."""
    if model.obstacles:
        raise PlanError(
            f"no engine here runs a model with {' and '.join(model.obstacles)}; "
            "it can only be estimated",
            at=("model",),
        )
    if missing := unrunnable(job):
        text = f"not run here yet, only estimated: {', '.join(missing)}"
        reason = "; nothing moves weights between pools on different nodes"
        raise PlanError(text + reason * bool(job.cluster.groups))


def check_rendered(job: JobSpec, model: ModelSpec) -> None:
    """PlanError as above, but for groups of nodes: their script shows what Slurm is asked for."""
    cluster = job.cluster.model_copy(update={"groups": ()})
    check_runnable(job.model_copy(update={"cluster": cluster}), model)


def check_plannable(job: JobSpec) -> None:
    """PlanError when the planner would take no notice of something the job asks for."""
    if missing := unplanned(job):
        raise PlanError(f"not planned yet: {', '.join(missing)}")
