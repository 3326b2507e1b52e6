"""A folder that all ranks write and rank 0 commits: checkpoints and experience.

write to `*.tmp` -> sync -> barrier -> manifest last -> rename -> sync of the parent. A reader
sees the folder whole, or not at all.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from runtime.control import Control, PeerLost
from runtime.files import (
    FILE_MODE,
    discard_folder,
    make_folder,
    move_folder,
    refusals_told,
    sync,
    temporary_of,
)
from runtime.manifest import (
    DamagedFolder,
    FileEntry,
    Manifest,
    as_data,
    entry_of,
    file_names,
    from_data,
    problems,
    read_manifest,
    write_manifest,
)

STEP_NAME = re.compile(r"step-(\d{6,})")


def commit_together(
    folder: Path,
    header: Manifest,
    write: Callable[[Path], None],
    *,
    control: Control,
    deadline_seconds: float,
) -> None:
    """Put `folder` in its place with what every rank writes; all ranks call this.

    `write` gets the temporary folder, which exists on all ranks and is empty. `header` is the
    manifest without its files. When one rank cannot write, that rank raises OSError, after
    the temporary folder is removed (so that a full disk can take its verdict), and the others
    PeerLost: at once or after the deadline, which holds for each of the waits.
    """
    commit = Commit(folder=folder, header=header, control=control, seconds=deadline_seconds)
    with commit.cleared_when_refused():
        commit.begin()
        with commit.peer_may_leave():
            with refusals_told(commit.temporary):
                write(commit.temporary)
            control.barrier(f"{commit.what}: written", deadline_seconds)
            entries = commit.seal()
            files = commit.gathered(entries)
        commit.put_in_place(files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The parts of `commit_together`, for what is not written in one go.

    All ranks do each part together, but for `seal`, which meets nobody and may be done in a
    thread. `seconds` is the deadline of each meeting.
    """

    folder: Path
    header: Manifest
    control: Control
    seconds: float

    @property
    def what(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def temporary(self) -> Path:
        """Where the files are written."""
        return temporary_of(self.folder)

    def begin(self) -> None:
        """Return when the temporary folder is there, empty."""
        if self.control.rank == 0:
            shutil.rmtree(self.temporary, ignore_errors=True)
            make_folder(self.temporary)
        self.control.barrier(f"{self.what}: begin", self.seconds)

    def seal(self) -> dict[str, FileEntry]:
        """Sync and hash this rank's share of the files that all have written.

        Reading on one node what another wrote makes a network file system bring it to its
        server.
        """
        entries = {}
        for name in file_names(self.temporary)[self.control.rank :: self.control.size]:
            path = self.temporary / name
            path.chmod(FILE_MODE)
            sync(path)
            entries[name] = entry_of(path)
        return entries

    def gathered(self, entries: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
        """The entries of all ranks."""
        mine = {name: asdict(entry) for name, entry in entries.items()}
        what = f"{self.folder.name}: sync"
        everyones = self.control.gather(mine, what=what, seconds=self.seconds)
        return {name: FileEntry(**row) for rows in everyones for name, row in rows.items()}

    def put_in_place(self, files: Mapping[str, FileEntry]) -> None:
        """Write the manifest and rename; return when that is done."""
        if self.control.rank == 0:
            _finish(self.temporary, self.folder, replace(self.header, files=files))
        self.control.barrier(f"{self.what}: committed", self.seconds)

    def clear(self) -> None:
        """Remove what was written, so that a full disk can take a verdict."""
        shutil.rmtree(self.temporary, ignore_errors=True)

    @contextmanager
    def cleared_when_refused(self) -> Iterator[None]:
        """What a system refuses to write is removed before the error goes on."""
        try:
            yield
        except OSError:
            self.clear()
            raise

    @contextmanager
    def peer_may_leave(self) -> Iterator[None]:
        """Tells what fails because another rank removed the folder as the loss of that rank."""
        try:
            yield
        except BaseException as error:  # torch's CheckpointException is no Exception; raised again
            if not self.temporary.exists():
                raise PeerLost(self.what, self.seconds) from error
            raise


def verify_together(folder: Path, control: Control, deadline_seconds: float) -> Manifest:
    """The manifest of a folder whose files are all as written; the same on every rank.

    Rank 0 reads the manifest and each rank its share of the files. Raises DamagedFolder, on
    all ranks, with one line for each thing that is wrong.
    """
    what = f"{folder.parent.name}/{folder.name}: verify"
    read = _read(folder) if control.rank == 0 else None
    data, reasons = control.broadcast(read, what=what, seconds=deadline_seconds)
    if reasons:
        raise DamagedFolder("\n".join(reasons))
    manifest = from_data(data)
    mine = sorted(manifest.files)[control.rank :: control.size]
    found = problems(folder, manifest.files, mine)
    everyones = control.gather(found, what=what, seconds=deadline_seconds)
    found = sorted(line for lines in everyones for line in lines)
    if found:
        raise DamagedFolder("\n".join(found))
    return manifest


def step_name(step: int) -> str:
    """The name of a step's folder; names sort like steps up to 999,999."""
    return f"step-{step:06d}"


def committed_steps(folder: Path) -> list[int]:
    """The steps that have a folder here, ascending; unfinished ones do not count."""
    matches = (STEP_NAME.fullmatch(path.name) for path in folder.glob("step-*"))
    return sorted(int(match[1]) for match in matches if match)


def prune(folder: Path, newest: int, keep: int) -> list[int]:
    """Remove all but the `keep` newest steps up to `newest` and itself; returns the removed.

    Steps past `newest` are of a future that a resumed run has left, and go too.
    """
    steps = committed_steps(folder)
    kept = {newest, *[step for step in steps if step <= newest][-keep:]}
    removed = [step for step in steps if step not in kept]
    for step in removed:
        discard_folder(folder / step_name(step))
    return removed


def _finish(temporary: Path, folder: Path, manifest: Manifest) -> None:
    for inner in sorted(path for path in temporary.rglob("*") if path.is_dir()):
        sync(inner)
    write_manifest(temporary, manifest)
    move_folder(temporary, folder)


def _read(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The data of the manifest, or the reason why there is none."""
    try:
        return as_data(read_manifest(folder)), []
    except DamagedFolder as error:
        return {}, [str(error)]
