"""Files and folders are whole or not there."""

import errno
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from runtime.commit import commit_together, committed_steps, prune, step_name, verify_together
from runtime.control import PeerLost, SingleControl
from runtime.files import make_folder, remove_unfinished, write_file, write_json
from runtime.manifest import DamagedFolder, Manifest, read_manifest, verify
from tests.runtime.participants import run_ranks

HEADER = Manifest(step=7, plan_digest="4f2a91c0", versions={"torch": "2.13.0"})


@contextmanager
def files_of_at_most(count):
    """A system that refuses to write past `count` bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def commit(folder, control=None, names=("a.bin", "inner/b.bin"), deadline_seconds=20):
    control = control or SingleControl()

    def write(draft):
        for name in names[control.rank :: control.size]:
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_bytes(name.encode() * 1000)

    commit_together(folder, HEADER, write, control=control, deadline_seconds=deadline_seconds)


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_written_file_is_its_owners_alone(tmp_path):
    write_file(tmp_path / "a", b"text")
    make_folder(tmp_path / "deep" / "er")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "deep").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "deep" / "er").stat().st_mode & 0o777 == 0o700


def test_json_has_the_same_bytes_for_the_same_value(tmp_path):
    write_json(tmp_path / "a", {"b": 1, "a": [2]})
    write_json(tmp_path / "b", {"a": [2], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_file(tmp_path / "a", b"old")
    with files_of_at_most(4096), pytest.raises(OSError, match="File too large") as caught:
        write_file(tmp_path / "a", b"x" * 8192)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "a")
    assert names_in(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


FULL_DISK = """
import errno, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from torch.distributed import checkpoint
from runtime.commit import commit_together
from runtime.control import SingleControl
from runtime.manifest import Manifest

def by_torch(draft):
    checkpoint.save(
        {"a": torch.zeros(2**18)}, storage_writer=checkpoint.FileSystemWriter(draft), no_dist=True
    )

WRITERS = {
    "python": lambda draft: (draft / "a").write_bytes(bytes(2**20)),
    "safetensors": lambda draft: save_file({"a": torch.zeros(2**18)}, draft / "a"),
    "torch": by_torch,
}
folder = Path(sys.argv[1]) / "checkpoints" / "step-000001"
header = Manifest(step=1, plan_digest="")
write = WRITERS[sys.argv[2]]
try:
    commit_together(folder, header, write, control=SingleControl(), deadline_seconds=1)
except OSError as error:
    assert error.errno == errno.ENOSPC, error
    print("full", *sorted(path.name for path in folder.parent.iterdir()))
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare to make a small disk")
@pytest.mark.parametrize("writer", ["python", "safetensors", "torch"])
def test_a_full_disk_is_told_as_such_and_leaves_nothing_half_written(tmp_path, writer):
    mount = f'mount -t tmpfs -o size=128k none "{tmp_path}" && exec "$@"'
    program = [sys.executable, "-W", "ignore", "-c", FULL_DISK, str(tmp_path), writer]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", *program], capture_output=True, text=True
    )
    if "not permitted" in done.stderr or "denied" in done.stderr:
        pytest.skip("this system lets nobody mount a small disk")
    assert done.stdout == "full\n", done.stderr


def test_an_error_that_is_not_about_writing_passes_unchanged(tmp_path):
    def write(draft):
        (draft / "a").write_bytes(bytes(1 // 0))

    with pytest.raises(ZeroDivisionError):
        commit_together(tmp_path / "a", HEADER, write, control=SingleControl(), deadline_seconds=1)


def test_a_committed_folder_holds_its_files_and_a_manifest_that_says_so(tmp_path):
    commit(tmp_path / "step-000007")
    manifest = verify(tmp_path / "step-000007")
    assert sorted(manifest.files) == ["a.bin", "inner/b.bin"]
    assert manifest.files["a.bin"].size_bytes == 5000
    assert (manifest.step, manifest.plan_digest, manifest.versions) == (
        7,
        "4f2a91c0",
        {"torch": "2.13.0"},
    )
    assert names_in(tmp_path) == [
        "step-000007",
        "step-000007/a.bin",
        "step-000007/inner",
        "step-000007/inner/b.bin",
        "step-000007/manifest.json",
    ]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_ranks_commit_one_folder_together(tmp_path, size):
    names = tuple(f"{place}.bin" for place in range(4))

    def work(control):
        commit(tmp_path / "step-000007", control, names)
        return verify_together(tmp_path / "step-000007", control, 20)

    manifests = run_ranks(size, work)
    assert manifests == [verify(tmp_path / "step-000007")] * size
    assert sorted(manifests[0].files) == sorted(names)


def test_a_rank_that_cannot_write_takes_the_unfinished_folder_with_it(tmp_path):
    def work(control):
        def write(draft):
            (draft / str(control.rank)).write_bytes(b"x")
            if control.rank == 1:
                raise OSError(errno.ENOSPC, "No space left on device")

        commit_together(
            tmp_path / "step-000007", HEADER, write, control=control, deadline_seconds=20
        )

    first, second = run_ranks(2, work)
    assert isinstance(first, PeerLost)
    assert second.errno == errno.ENOSPC
    assert names_in(tmp_path) == []


def test_a_barrier_that_nobody_else_reaches_is_a_lost_peer(tmp_path):
    def work(control):
        if control.rank == 0:
            commit(tmp_path / "step-000007", control, deadline_seconds=0.05)

    first, _ = run_ranks(2, work)
    assert isinstance(first, PeerLost)
    assert "step-000007: begin" in str(first)
    assert committed_steps(tmp_path) == []


def test_a_folder_of_the_same_step_is_replaced(tmp_path):
    commit(tmp_path / "step-000007", names=("old.bin",))
    commit(tmp_path / "step-000007", names=("new.bin",))
    assert sorted(verify(tmp_path / "step-000007").files) == ["new.bin"]
    assert [path.name for path in tmp_path.iterdir()] == ["step-000007"]


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "harm", "reason"),
    [
        ("a.bin", lambda path: path.unlink(), r"a\.bin: missing"),
        ("a.bin", cut_short, r"a\.bin: 4999 bytes, the manifest says 5000"),
        ("inner/b.bin", flip_a_bit, r"b\.bin: damaged: sha256 [0-9a-f]{12}, written [0-9a-f]{12}"),
        ("manifest.json", lambda path: path.unlink(), "no such file"),
        ("manifest.json", lambda path: path.write_text(""), "not JSON, cut short perhaps"),
        ("manifest.json", cut_in_half, "not JSON, cut short perhaps"),
        ("manifest.json", lambda path: path.write_text("[]"), "not a manifest of format 1"),
        ("manifest.json", lambda path: path.write_text('{"format": 2}'), "of format 1"),
        ("manifest.json", lambda path: path.write_text('{"format": 1}'), "incomplete"),
    ],
)
def test_damage_is_named(tmp_path, name, harm, reason):
    folder = tmp_path / "step-000007"
    commit(folder)
    harm(folder / name)
    with pytest.raises(DamagedFolder, match=reason) as alone:
        verify(folder)

    def work(control):
        with pytest.raises(DamagedFolder) as caught:
            verify_together(folder, control, 20)
        return str(caught.value)

    assert run_ranks(2, work) == [str(alone.value)] * 2


def test_all_damaged_files_are_named_at_once(tmp_path):
    commit(tmp_path / "step-000007")
    (tmp_path / "step-000007" / "a.bin").unlink()
    cut_short(tmp_path / "step-000007" / "inner" / "b.bin")
    with pytest.raises(DamagedFolder) as caught:
        verify(tmp_path / "step-000007")
    assert len(str(caught.value).splitlines()) == 2


def test_a_folder_without_its_manifest_is_not_of_a_committed_one(tmp_path):
    (tmp_path / "step-000007").mkdir()
    with pytest.raises(DamagedFolder, match=r"manifest\.json"):
        read_manifest(tmp_path / "step-000007")


def test_unfinished_files_and_folders_are_removed(tmp_path):
    commit(tmp_path / "step-000007")
    (tmp_path / "step-000008.tmp" / "inner").mkdir(parents=True)
    (tmp_path / "latest.tmp").write_text("step-0")
    removed = remove_unfinished(tmp_path)
    assert [path.name for path in removed] == ["latest.tmp", "step-000008.tmp"]
    assert [path.name for path in tmp_path.iterdir()] == ["step-000007"]


def test_only_folders_of_steps_count(tmp_path):
    for name in ("step-000010", "step-000002.tmp", "step-12", "step-1000000", "other"):
        (tmp_path / name).mkdir()
    assert committed_steps(tmp_path) == [10, 1000000]
    assert step_name(1000000) == "step-1000000"


@pytest.mark.parametrize(
    ("steps", "newest", "keep", "left"),
    [
        ([1, 2, 3, 4], 4, 2, [3, 4]),
        ([1, 2, 3, 4], 4, 9, [1, 2, 3, 4]),
        ([4], 4, 1, [4]),
        # 30 was left behind by a run that went back to 10 and is now at 20.
        ([10, 20, 30], 20, 2, [10, 20]),
        ([10, 20, 30], 20, 1, [20]),
    ],
)
def test_pruning_keeps_the_newest_up_to_now(tmp_path, steps, newest, keep, left):
    for step in steps:
        commit(tmp_path / step_name(step))
    prune(tmp_path, newest, keep)
    assert committed_steps(tmp_path) == left
    assert remove_unfinished(tmp_path) == []
