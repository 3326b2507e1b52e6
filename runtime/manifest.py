"""Manifest: what a committed folder holds, to the byte, and where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from plans.source import UserError
from plans.values import frozen
from runtime.files import write_json

MANIFEST = "manifest.json"
FORMAT = 1


class DamagedFolder(UserError):
    """A committed folder is not what its manifest says; the message names file and reason."""


@frozen
class FileEntry:
    """One file of the folder: its size and the SHA-256 of its contents, in hex."""

    size_bytes: int
    sha256: str


@frozen
class Manifest:
    """The files of a folder by their path in it, and the plan, step and versions that wrote them.

    `details` are the writer's own: shapes and number formats of an experience.
    """

    step: int
    plan_digest: str
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


def as_data(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON can hold it."""
    return asdict(manifest)


def from_data(data: Mapping[str, Any]) -> Manifest:
    """The manifest that `as_data` took apart; KeyError or TypeError when something is missing."""
    return Manifest(
        step=int(data["step"]),
        plan_digest=str(data["plan_digest"]),
        versions=dict(data["versions"]),
        files={
            str(name): FileEntry(size_bytes=int(row["size_bytes"]), sha256=str(row["sha256"]))
            for name, row in data["files"].items()
        },
        details=dict(data["details"]),
    )


def file_names(folder: Path) -> list[str]:
    """The paths of all files in a folder, relative to it and sorted, without the manifest."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != MANIFEST)


def entry_of(path: Path) -> FileEntry:
    """Size and hash of a file as it stands."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(size_bytes=path.stat().st_size, sha256=digest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put the manifest in place: the last file of a folder to be written."""
    write_json(folder / MANIFEST, {"format": FORMAT, **as_data(manifest)})


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder; DamagedFolder with the reason when it cannot be read."""
    path = folder / MANIFEST
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise DamagedFolder(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise DamagedFolder(f"{path}: not JSON, cut short perhaps: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise DamagedFolder(f"{path}: not a manifest of format {FORMAT}")
    try:
        return from_data(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedFolder(f"{path}: incomplete: {error!r}") from None


def problems(folder: Path, files: Mapping[str, FileEntry], names: Sequence[str]) -> list[str]:
    """What is wrong with the named files, one line each; sizes first, contents when they fit."""
    found = []
    for name in names:
        path, wanted = folder / name, files[name]
        if not path.is_file():
            found.append(f"{path}: missing")
        elif path.stat().st_size != wanted.size_bytes:
            size = path.stat().st_size
            found.append(f"{path}: {size} bytes, the manifest says {wanted.size_bytes}")
        elif (have := entry_of(path).sha256) != wanted.sha256:
            found.append(f"{path}: damaged: sha256 {have[:12]}, written {wanted.sha256[:12]}")
    return found


def verify(folder: Path) -> Manifest:
    """The manifest of a folder whose files are all as written; DamagedFolder names the others."""
    manifest = read_manifest(folder)
    found = problems(folder, manifest.files, sorted(manifest.files))
    if found:
        raise DamagedFolder("\n".join(found))
    return manifest
