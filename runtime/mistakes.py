"""What a user can get wrong that only the run can see; each kind ends a rank with its exit code."""

from __future__ import annotations

from plans.record import ExitCode
from plans.source import UserError


class RunMistake(UserError):
    """A mistake of the user, found by a running rank; `code` is the exit code it stands for."""

    code = ExitCode.INTERNAL


class DataMistake(RunMistake):
    """A data file exists but does not hold what the job needs."""

    code = ExitCode.DATA


class MissingInput(RunMistake):
    """A file or folder that the job names is not there."""

    code = ExitCode.MISSING_INPUT


class RewardMistake(RunMistake):
    """The reward rule cannot be loaded, or failed on a response."""

    code = ExitCode.REWARD
