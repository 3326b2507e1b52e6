"""rlplan: static execution plans for RL post-training on SLURM clusters.

Names are resolved on first use, so `import rlplan` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.job import Run as Run
    from launcher.job import run as run
    from launcher.submission import Submitted as Submitted
    from launcher.submission import submit as submit
    from plans.estimate import Estimate as Estimate
    from plans.hardware import HardwareSpec as HardwareSpec
    from plans.hardware import read_hardware as read_hardware
    from plans.layout import ParallelLayout as ParallelLayout
    from plans.load import estimate as estimate
    from plans.load import make_plan as make_plan
    from plans.model import ModelSpec as ModelSpec
    from plans.model import read_model as read_model
    from plans.plan import Plan as Plan
    from plans.plan import dumps as dumps
    from plans.plan import read_plan as read_plan
    from plans.source import PlanError as PlanError
    from plans.source import SpecError as SpecError
    from plans.source import UserError as UserError
    from plans.spec import JobSpec as JobSpec
    from plans.spec import load as load
    from slurm.script import render as render

_HOME = {
    "Estimate": "plans.estimate",
    "HardwareSpec": "plans.hardware",
    "JobSpec": "plans.spec",
    "ModelSpec": "plans.model",
    "ParallelLayout": "plans.layout",
    "Plan": "plans.plan",
    "PlanError": "plans.source",
    "SpecError": "plans.source",
    "Submitted": "launcher.submission",
    "Run": "launcher.job",
    "UserError": "plans.source",
    "dumps": "plans.plan",
    "estimate": "plans.load",
    "load": "plans.spec",
    "make_plan": "plans.load",
    "read_hardware": "plans.hardware",
    "read_model": "plans.model",
    "read_plan": "plans.plan",
    "render": "slurm.script",
    "run": "launcher.job",
    "submit": "launcher.submission",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'rlplan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
