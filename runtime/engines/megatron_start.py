"""The first import of Megatron-core in a process, and what it wants set up once."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from runtime.engines import megatron_cpu

# what 0.16.1 does on purpose and torch or Megatron-core itself warns about, on every rank
HARMLESS: tuple[tuple[type[Warning], str], ...] = (
    (FutureWarning, r"`torch\.distributed\.\w+` is deprecated"),
    (UserWarning, r"full scope is deprecated"),
    (UserWarning, r"The \.grad attribute of a Tensor that is not a leaf"),
)
# marks what was repaired, so that it is repaired once a process
REPAIRED = "rlplan_repaired"


def prepare() -> None:
    """Import Megatron-core with the CPU's substitutions in place; may be called again.

    Comes before the first import of anything else that imports `megatron.core`.
    """
    for category, start in HARMLESS:
        warnings.filterwarnings("ignore", message=start, category=category)
    if megatron_cpu.install():
        warnings.filterwarnings("ignore", message=".*CUDA_DEVICE_MAX_CONNECTIONS")
    with warnings.catch_warnings():
        # one warning a module that Apex and Transformer Engine are missing: both are optional
        warnings.simplefilter("ignore")
        import megatron.core.distributed
        import megatron.core.models.gpt
        import megatron.core.optimizer
        import megatron.core.pipeline_parallel  # noqa: F401
    megatron_cpu.finish()
    _repair_optimizer_state()
    _prepare_globals()


def _prepare_globals() -> None:
    """Set up the two things of Megatron-core that have no argument, once a process."""
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import initialize_rng_tracker

    # nothing here draws at random (no dropout, no initialisation): a tracker without states
    initialize_rng_tracker(inference_rng_tracker=True)
    # sequence parallelism gathers its inputs there
    if parallel_state._GLOBAL_MEMORY_BUFFER is None:
        parallel_state._set_global_memory_buffer()


def _repair_optimizer_state() -> None:
    """Let a DistributedOptimizer around torch's AdamW read its checkpoint.

    AdamW keeps a `step` tensor a parameter. 0.16.1 looks for it among the loaded tensors,
    where it is not (KeyError), and gives all parameters one tensor, which AdamW would then
    count up once a parameter: silently wrong after a resume.
    """
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    load = DistributedOptimizer.load_state_dict
    if getattr(load, REPAIRED, False):
        return
    set_tensors = DistributedOptimizer._set_main_param_and_optimizer_states

    def set_with_step(self: Any, parameter: torch.Tensor, tensors: dict[str, Any]) -> None:
        group, place = self.model_param_group_index_map[parameter]
        state = self.optimizer.state[self.optimizer.param_groups[group]["params"][place]]
        kept = {"step": state["step"]} if "step" in state else {}
        set_tensors(self, parameter, {**kept, **tensors})

    def load_own_steps(self: Any, state_dict: dict[str, Any]) -> None:
        load(self, state_dict)
        for state in self.optimizer.state.values():
            if isinstance(state.get("step"), torch.Tensor):
                state["step"] = state["step"].clone()

    setattr(load_own_steps, REPAIRED, True)
    DistributedOptimizer._set_main_param_and_optimizer_states = set_with_step
    DistributedOptimizer.load_state_dict = load_own_steps
