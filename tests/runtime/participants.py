"""Who takes part in the protocols under test: ranks as threads, and an engine of plain tensors."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from plans.load import make_plan
from runtime.checkpoint import Saver
from runtime.control import PeerLost, decode, encode
from runtime.events import EventLog

MODEL = Path(__file__).parents[2] / "examples" / "tiny-qwen2"
JOB = """
name: tiny
model: {{path: {model}, weights: random}}
algorithm: {algorithm}
data: {{train: train.jsonl}}
reward: exact
batch: {{prompts: 4, samples: 2}}
tokens: {{prompt: 8, response: 8}}
steps: 4
checkpoint: {{keep: {keep}}}
experience: {{keep: {experience}}}
cluster: {{hardware: cpu, ranks: {ranks}}}
"""


def tiny_plan(folder, *, algorithm="grpo", keep=2, experience=2, ranks=1):
    """The plan of a small job, whose file is put into the folder."""
    values = {"algorithm": algorithm, "keep": keep, "experience": experience, "ranks": ranks}
    path = folder / "job.yaml"
    path.write_text(JOB.format(model=MODEL, **values))
    return make_plan(path)


class ThreadControl:
    """The control of ranks that are threads of this process."""

    library = "threads"

    def __init__(self, rank, size, gate, slots):
        self.rank, self.size, self._gate, self._slots = rank, size, gate, slots

    def barrier(self, what, seconds=None):
        try:
            self._gate.wait(seconds or 20)
        except threading.BrokenBarrierError:
            raise PeerLost(what, seconds or 20) from None

    def gather(self, value, *, what="gather", seconds=None):
        self._slots[self.rank] = encode(value)
        self.barrier(what, seconds)
        values = [decode(slot) for slot in self._slots]
        self.barrier(what, seconds)
        return values

    def broadcast(self, value, root=0, *, what="broadcast", seconds=None):
        return self.gather(value, what=what, seconds=seconds)[root]


def run_ranks(size, work):
    """What `work(control)` gave on each rank: its result or its exception."""
    gate, slots = threading.Barrier(size), [None] * size

    def one(rank):
        try:
            return work(ThreadControl(rank, size, gate, slots))
        except BaseException as error:
            gate.abort()
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


class TensorSaving:
    """The tensors of an engine on their way to the disk."""

    def __init__(self, engine, path, tensors):
        self.engine, self.path, self.tensors = engine, path, tensors

    def write(self):
        self.engine.write(self.path, self.tensors)

    def finish(self):
        pass


class TensorEngine:
    """An engine that holds tensors: it saves and loads them by safetensors, a file a rank."""

    def __init__(self, rank=0, *, elements=1000, seed=0):
        generator = torch.Generator().manual_seed(seed * 1000 + rank)
        self.rank = rank
        self.tensors = {"weight": torch.randn(elements, generator=generator)}

    def parameters(self):
        return self.tensors

    def begin_save(self, folder, *, copies):
        held = {n: one.clone() for n, one in self.tensors.items()} if copies else self.tensors
        return TensorSaving(self, folder / self._name, held)

    def write(self, path, tensors):
        save_file(tensors, path)

    def load(self, folder):
        self.tensors = load_file(folder / self._name)

    def full_tensors(self):
        for name, tensor in self.tensors.items():
            yield name, tensor if self.rank == 0 else None

    @property
    def _name(self):
        return f"rank-{self.rank}.safetensors"


def save(step, engines, state, control, run_folder, plan):
    """Write and commit a checkpoint in one go."""
    saver = Saver(
        engines=engines,
        control=control,
        run_folder=run_folder,
        plan=plan,
        events=EventLog(None),
    )
    saver.save(step, state)
    saver.wait()
