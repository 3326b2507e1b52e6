"""The first import of Megatron-core in a process, and what it wants set up once."""

from __future__ import annotations

import warnings

from runtime.engines import megatron_cpu

# what 0.16.1 does on purpose and torch or Megatron-core itself warns about, on every rank
HARMLESS: tuple[tuple[type[Warning], str], ...] = (
    (FutureWarning, r"`torch\.distributed\.\w+` is deprecated"),
    (UserWarning, r"full scope is deprecated"),
    (UserWarning, r"The \.grad attribute of a Tensor that is not a leaf"),
)


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
