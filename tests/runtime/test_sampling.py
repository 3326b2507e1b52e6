"""Answers that took their rule too long are counted in the metrics of the step."""

from pathlib import Path

import pytest
import torch.distributed as dist

from plans.layout import ParallelLayout
from runtime.assembly import Engines
from runtime.batch import Completion
from runtime.generation import Generator
from runtime.judges import open_judge
from runtime.learner import Learner
from runtime.prompt import Prompt
from runtime.sampling import Sampler
from runtime.tokenizer import load_tokenizer
from tests.runtime.participants import MODEL, tiny_plan

SLOW_FOR_ONE = """
import time

def judge(prompt, response, answer):
    time.sleep(600 if answer == "slow" else 0)
    return 1.0
"""


@pytest.fixture
def world():
    """A world of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Echo:
    """A rollout engine that answers each prompt with itself."""

    def generate(self, requests):
        return [
            Completion(tokens=one.tokens, log_probs=(0.0,) * len(one.tokens)) for one in requests
        ]


@pytest.mark.usefixtures("world")
def test_answers_that_took_too_long_are_counted_step_by_step(tmp_path):
    plan, tokenizer = tiny_plan(tmp_path), load_tokenizer(MODEL)
    (tmp_path / "slow.py").write_text(SLOW_FOR_ONE)
    prompts = [
        Prompt(index=row, text="1", tokens=(2, 3), answer="slow" if row == 2 else "")
        for row in range(plan.job.batch.prompts)
    ]
    generator = Generator(
        engine=Echo(),
        layout=ParallelLayout(),
        place=0,
        stop_token=tokenizer.end_token,
        pad_token=tokenizer.pad_token,
        response_tokens=4,
        prompt_tokens=4,
    )
    engines = Engines(rank=0, trained={}, scored={}, rollout=None, executor=None)
    sampler = Sampler(
        plan=plan,
        prompts=prompts,
        tokenizer=tokenizer,
        generator=generator,
        judge=open_judge({"slow.py:judge": 1.0}, Path(tmp_path), count=2, seconds=3),
        learner=Learner(plan=plan, engines=engines, device="cpu"),
    )
    for step in (1, 2):
        sampler.begin()
        sampler.generate()
        sampler.reward()
        experience, _ = sampler.experience(step, 0.0)
        metrics = sampler.metrics(experience)
        assert metrics["reward/timeouts"] == plan.job.batch.samples
        assert float(experience.rewards.sum()) == 3 * plan.job.batch.samples
    sampler.judge.close()
