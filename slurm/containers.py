"""How a rank is put into a container: words before its command, or options of srun.

Only the ranks enter it. The batch script itself, which talks to Slurm, stays on the host with
the Python it is given.
"""

from __future__ import annotations

from collections.abc import Iterable

from plans.values import frozen
from slurm.site import ContainerSpec

# What hands the devices in (apptainer manual; for pyxis a hook of enroot does it).
DEVICES = {"cuda": ("--nv",), "rocm": ("--rocm",), "cpu": ()}


@frozen
class Entrance:
    """Options of srun and words before the rank's Python; both empty without a container.

    `mounts` are added to the folder of submission, which only the running script knows.
    """

    srun: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()
    python: str = ""
    mounts: tuple[str, ...] = ()


def entrance_of(container: ContainerSpec, platform: str, variables: Iterable[str]) -> Entrance:
    """The way into a site's container on a platform.

    Under pyxis the image's variables win over the host's unless they are listed, so
    `variables` are. Apptainer hands all of them in.
    """
    if container.runtime == "none":
        return Entrance()
    image = container.image or ""
    if container.runtime == "apptainer":
        binds = tuple(word for mount in container.mounts for word in ("--bind", mount))
        words = ("apptainer", "exec", *DEVICES[platform], *binds)
        return Entrance(words=(*words, image), python=container.python)
    options = (
        ("container-image", image),
        ("no-container-mount-home", ""),
        ("container-env", ",".join(sorted(variables))),
    )
    return Entrance(srun=options, python=container.python, mounts=container.mounts)
