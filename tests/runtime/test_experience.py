"""The batch of a step comes back from its files as it was."""

import h5py
import pytest
import torch

from runtime.batch import Experience, Sequences
from runtime.control import SingleControl
from runtime.experience import experience_writer, read_experience
from runtime.manifest import DamagedFolder, read_manifest
from tests.runtime.participants import run_ranks, tiny_plan


def batch(step=1, rows=5, width=7, *, critic=False):
    generator = torch.Generator().manual_seed(step)
    per_token = {
        name: torch.randn(rows, width - 1, generator=generator)
        for name in ("rollout_log_probs", "advantages", *(("values", "returns") if critic else ()))
    }
    return Experience(
        step=step,
        sequences=Sequences(
            tokens=torch.randint(0, 50, (rows, width), generator=generator),
            prompt_lengths=torch.full((rows,), 2),
            lengths=torch.randint(3, width + 1, (rows,), generator=generator),
        ),
        rewards=torch.rand(rows, generator=generator),
        **per_token,
    )


def assert_same(one, other):
    for name in Experience.__dataclass_fields__:
        left, right = getattr(one, name), getattr(other, name)
        if name == "sequences":
            for part in ("tokens", "prompt_lengths", "lengths"):
                assert torch.equal(getattr(left, part), getattr(right, part))
                assert getattr(left, part).dtype == getattr(right, part).dtype
        elif isinstance(left, torch.Tensor):
            assert torch.equal(left, right)
            assert left.dtype == right.dtype
        else:
            assert left == right


@pytest.mark.parametrize("critic", [False, True])
def test_an_experience_comes_back_bit_for_bit(tmp_path, critic):
    plan = tiny_plan(tmp_path)
    folder = experience_writer(SingleControl(), tmp_path, plan).write(batch(critic=critic))
    assert folder == tmp_path / "experience" / "step-000001"
    assert_same(read_experience(folder), batch(critic=critic))


@pytest.mark.parametrize("size", [2, 3, 8])
def test_each_rank_writes_its_own_rows_and_the_whole_comes_back(tmp_path, size):
    plan = tiny_plan(tmp_path)
    run_ranks(size, lambda control: experience_writer(control, tmp_path, plan).write(batch()))
    folder = tmp_path / "experience" / "step-000001"
    assert len(list(folder.glob("rank-*.h5"))) == min(size, 5)
    assert_same(read_experience(folder), batch())


def test_a_file_tells_its_step_its_rows_and_its_plan(tmp_path):
    plan = tiny_plan(tmp_path)
    run_ranks(2, lambda control: experience_writer(control, tmp_path, plan).write(batch(step=120)))
    folder = tmp_path / "experience" / "step-000120"
    with h5py.File(folder / "rank-0001.h5") as file:
        assert dict(file.attrs) == {"step": 120, "first_row": 2, "plan_digest": plan.digest}
        assert file["tokens"].shape == (3, 7)
    details = read_manifest(folder).details
    assert details["tokens"] == {"shape": [5, 7], "dtype": "int64"}
    assert details["rewards"] == {"shape": [5], "dtype": "float32"}


def test_the_planned_number_of_steps_stays(tmp_path):
    plan = tiny_plan(tmp_path)
    writer = experience_writer(SingleControl(), tmp_path, plan)
    for step in (1, 2, 3):
        writer.write(batch(step))
    names = sorted(path.name for path in (tmp_path / "experience").iterdir())
    assert names == ["step-000002", "step-000003"]


def test_nothing_is_written_when_none_is_to_be_kept(tmp_path):
    plan = tiny_plan(tmp_path, experience=0)
    assert experience_writer(SingleControl(), tmp_path, plan).write(batch()) is None
    assert not (tmp_path / "experience").exists()


def test_a_damaged_file_is_named(tmp_path):
    folder = experience_writer(SingleControl(), tmp_path, tiny_plan(tmp_path)).write(batch())
    path = folder / "rank-0000.h5"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFolder, match=r"rank-0000\.h5: \d+ bytes, the manifest says \d+"):
        read_experience(folder)
