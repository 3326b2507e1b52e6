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


class MaskMistake(RunMistake):
    """The variables that hide devices contradict each other, or leave too few."""

    code = ExitCode.MASKS


class BrokenSoftware(RunMistake):
    """A library does not load on this node."""

    code = ExitCode.VERSIONS


class UnfitHost(RunMistake):
    """A host lacks what the plan needs; `code` is that of the first check that failed."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


class SharedDevice(RunMistake):
    """Two ranks of a host use one device."""

    code = ExitCode.DEVICES


class SlowLink(RunMistake):
    """Ranks cannot reach each other in time, or far below the rate of their link."""

    code = ExitCode.LINK
