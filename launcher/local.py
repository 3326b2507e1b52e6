"""Runs a plan on this machine: mpirun starts the ranks, and this process follows them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import runtime
from launcher.folder import ended_well
from launcher.follow import Deaths, Tail, killed_verdict
from launcher.mpi import Mpirun, find_mpirun
from launcher.platforms import platform_of
from plans.hardware import read_hardware
from plans.plan import Plan
from plans.platform import CPU, CUDA_MASK, HIP_MASK, MASKS, Platform
from plans.record import ExitCode, Verdict
from plans.values import frozen
from runtime.context import attempt_path
from runtime.environment import current, without_launchers
from runtime.files import write_file
from runtime.heartbeat import read_beats
from runtime.verdict import INTERRUPTED, first_cause, read_verdicts, verdict_text

POLL_SECONDS = 0.2
# After a signal, mpirun gets this long to end its ranks before they are killed.
STOP_SECONDS = 10.0
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FOLLOWED = ("metrics", "events")
PIPE_BYTES = 1 << 16
SHOWN_LINES = 12
PRIVATE = 0o077
RANK = ("-m", "runtime.rank")

PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Called with 'metrics' or 'events' and a record, as the run writes them.
Listener = Callable[[str, dict[str, Any]], None]


@frozen
class Outcome:
    """How an attempt ended: its exit code, the first cause, and what every rank said of it."""

    code: int
    attempt: int
    mpirun: Mpirun
    cause: Verdict | None
    verdicts: tuple[Verdict, ...]
    output: str

    @property
    def text(self) -> str:
        """Why the attempt ended, in a line or a few; empty after success."""
        if self.code == ExitCode.OK:
            return ""
        if self.cause is not None:
            return verdict_text(self.cause)
        if self.code == INTERRUPTED:
            return "stopped by the user; --resume continues from the latest checkpoint"
        last = "\n".join(self.output.strip().splitlines()[-SHOWN_LINES:])
        return f"the ranks ended without a verdict; {self.mpirun} said:\n{last}"


def start(
    plan: Plan,
    run_folder: Path,
    base: Path,
    attempt: int,
    *,
    resume: bool = False,
    rehearse: bool = False,
    until: int | None = None,
    listener: Listener = lambda _name, _record: None,
    environment: dict[str, str] | None = None,
    program: Sequence[str] = RANK,
) -> Outcome:
    """Run one attempt of a plan whose folder is open (`folder.open_run`), to its end.

    UserError when this machine has no usable mpirun. Ctrl-C (and SIGTERM) ends all ranks and
    returns with exit code 130. `program` is what Python runs on each rank.
    """
    user = without_launchers(current() if environment is None else environment)
    mpirun = find_mpirun(user)
    options = ["--base", str(base), "--attempt", str(attempt)]
    options += ["--resume"] if resume else []
    options += ["--rehearse"] if rehearse else []
    options += ["--until", str(until)] if until is not None else []
    rank = [sys.executable, *program, *options, str(run_folder)]
    command = mpirun.command(plan.world_size, rank)
    watch = _Watch(run_folder, attempt, plan.world_size, listener)
    process = subprocess.Popen(
        command,
        env=rank_environment(plan, user),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        umask=PRIVATE,
        preexec_fn=_dies_with_its_parent(os.getpid()),
    )
    return watch.follow(process, mpirun)


def rank_environment(plan: Plan, user: dict[str, str]) -> dict[str, str]:
    """The environment of the ranks: the user's, the platform's, and this code on Python's path."""
    return _environment(platform_of(read_hardware(plan.hardware)), user)


def cpu_environment() -> dict[str, str]:
    """The environment of a process on the CPU that is no rank and sees no GPU."""
    user = without_launchers(current())
    hidden = {CUDA_MASK: "", HIP_MASK: ""}
    left = {name: value for name, value in user.items() if name not in MASKS}
    return _environment(CPU, left) | hidden


def _environment(kind: Platform, user: dict[str, str]) -> dict[str, str]:
    platform = kind.on_one_host()
    here = str(Path(runtime.__file__).parent.parent)
    path = os.pathsep.join(part for part in (here, user.get("PYTHONPATH", "")) if part)
    return {**user, **platform.environment(user), "PYTHONPATH": path}


def _dies_with_its_parent(parent: int) -> Callable[[], None]:
    """What a child does before it becomes mpirun: have the kernel end it with this process.

    Nothing else tells mpirun when its launcher is killed by SIGKILL, and ranks would go on
    that nobody follows (prctl PR_SET_PDEATHSIG, Linux).
    """
    prctl = ctypes.CDLL(None).prctl

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before this was arranged
            os._exit(INTERRUPTED)

    return arrange


class _Watch:
    """Follows one attempt from outside: what it writes, what mpirun says, and who dies."""

    def __init__(self, run_folder: Path, attempt: int, ranks: int, listener: Listener) -> None:
        self._run_folder, self._attempt, self._listener = run_folder, attempt, listener
        self._folder = attempt_path(run_folder, attempt)
        self._tails = {name: Tail(run_folder / f"{name}.jsonl") for name in FOLLOWED}
        self._deaths = Deaths(self._folder / "heartbeat", ranks)
        self._said = bytearray()
        self._pipe = -1

    def follow(self, process: subprocess.Popen[bytes], mpirun: Mpirun) -> Outcome:
        """Follow to the end; whatever happens here, no rank outlives it."""
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._pipe = process.stdout.fileno()
        interrupted = False
        try:
            with _termination_interrupts():
                while process.poll() is None:
                    self._look(POLL_SECONDS)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            _stop(process)
            try:
                self._look(0)
            finally:
                self._deaths.end()
        return self._outcome(process.returncode, interrupted, mpirun)

    def _look(self, seconds: float) -> None:
        """Take in what is new; waits for at most this long."""
        self._deaths.wait(seconds)
        with suppress(BlockingIOError):
            while piece := os.read(self._pipe, PIPE_BYTES):
                self._said += piece
        for name, tail in self._tails.items():
            for record in tail.records():
                self._listener(name, record)

    def _outcome(self, returned: int, interrupted: bool, mpirun: Mpirun) -> Outcome:
        said = self._said.decode(errors="replace")
        with suppress(OSError):
            write_file(self._folder / "logs" / "mpirun.log", bytes(self._said))
        verdicts = self._verdicts(said, returned)
        cause = None if interrupted else first_cause(verdicts)
        return Outcome(
            code=INTERRUPTED if interrupted else self._code(cause, returned),
            attempt=self._attempt,
            mpirun=mpirun,
            cause=cause,
            verdicts=verdicts,
            output=said,
        )

    def _code(self, cause: Verdict | None, returned: int) -> int:
        if cause is not None:
            return cause.code
        if returned == 0 and not ended_well(self._run_folder, self._attempt):
            return ExitCode.INTERNAL
        return returned

    def _verdicts(self, said: str, returned: int) -> tuple[Verdict, ...]:
        """What the ranks left, and, where that explains nothing, what a killed rank could not."""
        verdicts = read_verdicts(self._folder, said.splitlines())
        cause = first_cause(verdicts)
        if returned == 0 or (cause and cause.code != ExitCode.PEER_LOST):
            return verdicts
        beats = read_beats(self._folder / "heartbeat")
        missed = cause.unix_seconds if cause else None
        killed = killed_verdict(said, self._deaths, beats, missed)
        return (*verdicts, killed) if killed else verdicts


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End mpirun, which ends its ranks; a second Ctrl-C, or its silence, kills it."""
    if process.poll() is not None:
        return
    try:
        process.terminate()
        process.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """SIGTERM and a closed terminal act as Ctrl-C does; only the main thread can arrange it."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
