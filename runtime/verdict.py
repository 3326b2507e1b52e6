"""Verdicts: what each rank says of its own end, and which of them is the first cause."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from plans.record import REMEDIES, ExitCode, Verdict
from plans.source import UserError
from runtime.control import OutOfStep, PeerLost
from runtime.files import write_json
from runtime.heartbeat import Beat, beat_text, laggards
from runtime.mistakes import RunMistake

# A line of a rank's standard error that carries its verdict: the way that works on a full disk.
SPOKEN = "rlplan verdict: "
INTERRUPTED = 130
REASON_LETTERS = 2000

CANNOT_WRITE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
)
# How the libraries under a rank say that another rank went away (gloo, NCCL).
LOST_CONNECTION = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Connection refused",
    "remote process exited",
)


class WrongWorld(RuntimeError):
    """The ranks that started are not the ranks of the plan."""


CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (WrongWorld, ExitCode.WRONG_WORLD),
    (PeerLost, ExitCode.PEER_LOST),
    (OutOfStep, ExitCode.INTERNAL),
    (UserError, ExitCode.DATA),
    (FileNotFoundError, ExitCode.MISSING_INPUT),
)


def code_of(error: BaseException) -> int:
    """The exit code an exception stands for."""
    if isinstance(error, RunMistake):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    for kind, code in CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
        return ExitCode.CANNOT_WRITE
    if any(phrase in str(error) for phrase in LOST_CONNECTION):
        return ExitCode.PEER_LOST
    return ExitCode.INTERNAL


def verdict_of(error: BaseException, beat: Beat, beats: Iterable[Beat] = ()) -> Verdict:
    """The verdict of a rank that ends by an exception; `beats` tell whom it waited for."""
    code, now = code_of(error), time.time()
    reason = str(error) if isinstance(error, UserError | PeerLost | WrongWorld) else named(error)
    if code == ExitCode.PEER_LOST:
        missing = error.missing if isinstance(error, PeerLost) else ()
        reason = "; ".join([reason, *_whereabouts(missing, tuple(beats), now)])
    return Verdict(
        rank=beat.rank,
        host=beat.host,
        phase=beat.phase,
        step=beat.step,
        code=int(code),
        reason=reason[:REASON_LETTERS],
        remedy=REMEDIES.get(code, "") if isinstance(code, ExitCode) else "",
        unix_seconds=now,
    )


def overdue_verdict(beat: Beat, beats: Iterable[Beat], awaited: tuple[int, ...] = ()) -> Verdict:
    """The verdict of a rank whose phase has outlasted its deadline, waiting for these ranks."""
    seconds = beat.deadline_seconds or 0.0
    error = PeerLost(beat.phase, seconds, awaited)
    verdict = verdict_of(error, beat, beats)
    _, *behind = verdict.reason.split("; ")
    text = f"{beat.phase} of step {beat.step} has lasted longer than its deadline of {seconds:g} s"
    return replace(verdict, reason="; ".join([text, *behind]))


def named(error: BaseException) -> str:
    """The exception with its type: 'ZeroDivisionError: division by zero'."""
    return f"{type(error).__name__}: {error}".rstrip(": ")


def save_verdict(attempt: Path, verdict: Verdict) -> None:
    """Write `verdict.<rank>.json`, whole or not at all."""
    write_json(attempt / f"verdict.{verdict.rank}.json", asdict(verdict))


def speak_verdict(verdict: Verdict, stream: int) -> None:
    """Say the verdict as one line on a file descriptor."""
    os.write(stream, f"{SPOKEN}{json.dumps(asdict(verdict))}\n".encode())


def read_verdicts(attempt: Path, spoken: Iterable[str] = ()) -> tuple[Verdict, ...]:
    """The verdicts of an attempt in rank order: the files, and the lines that ranks spoke."""
    found = {}
    for line in spoken:
        _, mark, text = line.partition(SPOKEN)
        if mark:
            verdict = Verdict(**json.loads(text))
            found[verdict.rank] = verdict
    for path in attempt.glob("verdict.*.json"):
        verdict = Verdict(**json.loads(path.read_text()))
        found[verdict.rank] = verdict
    return tuple(found[rank] for rank in sorted(found))


def first_cause(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The verdict that explains the others; None when nobody left one.

    The earliest one with a reason of its own; a rank that lost a peer, or was told to stop,
    says only what followed.
    """
    followed = {ExitCode.PEER_LOST: 1, INTERRUPTED: 2}
    ordered = sorted(
        verdicts,
        key=lambda verdict: (
            followed.get(verdict.code, 0),
            verdict.unix_seconds,
            verdict.rank,
        ),
    )
    return ordered[0] if ordered else None


def verdict_text(verdict: Verdict) -> str:
    """'rank 37 (node12) in update_actor of step 118: killed by SIGKILL; <remedy>'."""
    place = f"rank {verdict.rank} ({verdict.host}) in {verdict.phase}"
    place += f" of step {verdict.step}" if verdict.step else ""
    remedy = f"; {verdict.remedy}" if verdict.remedy else ""
    return f"{place}: {verdict.reason}{remedy}"


def _whereabouts(missing: tuple[int, ...], beats: tuple[Beat, ...], now: float) -> list[str]:
    """Where the ranks that did not come were last seen."""
    sought = [beat for beat in beats if beat.rank in missing] or list(laggards(beats))
    return [beat_text(beat, now) for beat in sought[:4]]


def main(attempt: str) -> int:
    """Print the first cause of an attempt as one JSON line; exit code 1 when there is none."""
    verdict = first_cause(read_verdicts(Path(attempt)))
    if verdict is None:
        return 1
    print(json.dumps(asdict(verdict)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
