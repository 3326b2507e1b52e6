"""Small worlds under a real mpirun: a plan, a run folder, and ranks that may be told to fail."""

from dataclasses import replace
from pathlib import Path

from launcher.folder import open_run
from launcher.local import start
from plans.load import make_plan
from runtime.context import attempt_path
from runtime.environment import current

JOB = """
name: world
model: {{path: {model}, weights: random}}
algorithm: {algorithm}
data: {{train: train.jsonl}}
reward: exact
batch: {{prompts: {ranks}, samples: 2}}
tokens: {{prompt: 8, response: 8}}
steps: {steps}
cluster: {{hardware: cpu, ranks: {ranks}}}
{more}
"""
FAULTY_RANK = (str(Path(__file__).parent / "faulty_rank.py"),)


def world_plan(folder, *, ranks, steps=3, deadline_seconds=60.0, more="", algorithm="grpo"):
    """A plan for this many ranks whose phases must be through in `deadline_seconds`.

    `more` are further lines of the job file.
    """
    path = folder / "job.yaml"
    model = Path("examples/tiny-qwen2").resolve()
    path.write_text(
        JOB.format(model=model, ranks=ranks, steps=steps, more=more, algorithm=algorithm)
    )
    plan = make_plan(path)
    phases = tuple(replace(phase, deadline_seconds=deadline_seconds) for phase in plan.phases)
    return replace(plan, phases=phases)


def run_world(folder, plan, fault="", **options):
    """The outcome of one attempt, with its folder."""
    run_folder = folder / "run"
    attempt = open_run(run_folder, plan, resume=(run_folder / "plan.json").exists())
    environment = {**current(), "FAULT": fault}
    options = {"program": FAULTY_RANK, "environment": environment, **options}
    outcome = start(plan, run_folder, folder, attempt, **options)
    return outcome, attempt_path(run_folder, attempt)
