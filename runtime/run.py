"""A run on one rank: build what the plan says, let it learn, and take it down in order."""

from __future__ import annotations

import os

import torch

from plans.dataflow import Role
from runtime.assembly import Seat, assemble
from runtime.batch import Prompt
from runtime.context import RankContext
from runtime.data import read_prompts
from runtime.evaluation import Evaluation
from runtime.events import EventLog
from runtime.generation import Generator
from runtime.groups import join
from runtime.loop import StepWork
from runtime.rewards import load_reward
from runtime.session import Progress, Session
from runtime.tokenizer import Tokenizer, load_tokenizer
from runtime.versions import package_versions


def run(context: RankContext) -> bool:
    """Do the run, or what a stop request leaves of it; whether it is done. All ranks call this."""
    progress = Progress()
    events = EventLog(context.run_folder if context.rank == 0 else None)
    events.event("start", attempt=context.attempt, versions=package_versions())
    with context.outside("start"):
        inputs = _read_inputs(context)
        groups = join(context)
        session = _open(context, *inputs, events, progress)
    session.prepare()
    done = session.learn()
    if done:
        session.conclude()
    else:
        events.event("stop", step=session.progress.step)
    session.engines.rollout.close()
    groups.close()
    events.close()
    return done


def _read_inputs(
    context: RankContext,
) -> tuple[Tokenizer, tuple[Prompt, ...], tuple[Prompt, ...]]:
    """The tokenizer, training rows and held-out rows, before anything expensive is built."""
    job = context.plan.job
    tokenizer = load_tokenizer(context.base / job.model.path)
    train = read_prompts(
        context.base / job.data.train,
        tokenizer,
        prompt_tokens=job.tokens.prompt,
        answer_tokens=job.tokens.response if job.supervised else None,
    )
    held_out: tuple[Prompt, ...] = ()
    if job.data.eval:
        path = context.base / job.data.eval
        held_out = read_prompts(path, tokenizer, prompt_tokens=job.tokens.prompt)
    return tokenizer, train, held_out


def _open(
    context: RankContext,
    tokenizer: Tokenizer,
    train: tuple[Prompt, ...],
    held_out: tuple[Prompt, ...],
    events: EventLog,
    progress: Progress,
) -> Session:
    """Build the engines and what works with them."""
    plan, job = context.plan, context.plan.job
    rule = load_reward(job.reward, context.base)
    engines = assemble(plan, context.base, _seat(context))
    generator = Generator(
        engine=engines.rollout,
        layout=plan.placement(Role.ACTOR_ROLLOUT).layout,
        rank=context.rank,
        stop_token=tokenizer.end_token,
        pad_token=tokenizer.pad_token,
        response_tokens=job.tokens.response,
        prompt_tokens=job.tokens.prompt,
    )
    work = StepWork(
        plan=plan,
        engines=engines,
        prompts=train,
        tokenizer=tokenizer,
        generator=generator,
        reward_rule=rule,
        device=torch.device(context.device),
    )
    evaluation = Evaluation(
        prompts=held_out,
        tokenizer=tokenizer,
        generator=generator,
        reward_rule=rule,
        control=context.control,
    )
    return Session(
        context=context,
        engines=engines,
        train=train,
        tokenizer=tokenizer,
        work=work,
        evaluation=evaluation if held_out else None,
        events=events,
        progress=progress,
    )


def _seat(context: RankContext) -> Seat:
    """This rank's seat. Ranks share memory only where each has a core: vLLM's barrier spins."""
    starter = context.control.broadcast(os.getpid(), what="name of the job")
    return Seat(
        rank=context.rank,
        local_rank=context.local_rank,
        job=f"{context.plan.digest[:8]}-{starter}",
        shared_memory=context.local_size <= len(os.sched_getaffinity(0)),
    )
