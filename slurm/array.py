"""The text of an array of jobs: one script, whose tasks differ by their number alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slurm.directives import Options
from slurm.script import shell_environment


def render_array(
    options: Options,
    words: Sequence[str],
    *,
    python: str,
    about: str,
    environment: Mapping[str, str],
) -> str:
    """A script that runs `python -P` with `words` and the number of the task behind them.

    UserError when a value holds a control character.
    """
    template = shell_environment().get_template("array.sbatch.j2")
    return template.render(
        options=options, words=words, python=python, about=about, environment=environment
    )
