"""NVIDIA's optional libraries: whether they are installed, told without importing them."""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ABSENT = "not installed"
ENGINE, APEX = "transformer-engine", "apex"
# Transformer Engine's distributions: of all frameworks, and of one version of CUDA.
ENGINE_NAMES = ("transformer-engine", "transformer-engine-cu13", "transformer-engine-cu12")
# What Megatron-core takes from each, where both are there from the first.
USES = {
    ENGINE: "norms, rotary embedding and Adam of bf16 models on GPUs",
    APEX: "gradients accumulated inside the matrix product on GPUs",
}


def accelerators() -> dict[str, str]:
    """The version of each library, 'not installed' where it is not."""
    return {ENGINE: transformer_engine() or ABSENT, APEX: nvidia_apex() or ABSENT}


def transformer_engine() -> str:
    """The version of Transformer Engine; empty when it is not installed."""
    return _version(*ENGINE_NAMES) if PathFinder.find_spec("transformer_engine") else ""


def nvidia_apex() -> str:
    """The version of NVIDIA Apex; empty when it is not installed.

    PyPI's `apex` is an unrelated package of the same name: it has neither NVIDIA's optimizers
    nor the kernels they call.
    """
    has_kernels = PathFinder.find_spec("amp_C") is not None
    return _version(APEX) if has_kernels and _apex_folders("optimizers") else ""


def foreign_apex() -> bool:
    """Whether a package called apex is installed that is not NVIDIA's."""
    return bool(_apex_folders()) and not nvidia_apex()


def _apex_folders(*inside: str) -> list[Path]:
    spec = PathFinder.find_spec(APEX)
    places = list(spec.submodule_search_locations or ()) if spec else []
    folders = (Path(place, *inside) for place in places)
    return [folder for folder in folders if folder.is_dir()]


def _version(*names: str) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of unknown version"
