"""Joins the platforms: NVIDIA and CPU from plans, AMD from rocm."""

from __future__ import annotations

from plans.hardware import HardwareSpec
from plans.platform import CPU, CUDA, Platform
from rocm.platform import BY_HARDWARE, MI300X

PLATFORMS: dict[str, Platform] = {"cpu": CPU, "cuda": CUDA, "rocm": MI300X}


def platform_of(hardware: HardwareSpec) -> Platform:
    """The platform a kind of hardware belongs to; AMD's generations differ."""
    return BY_HARDWARE.get(hardware.name, PLATFORMS[hardware.platform])
