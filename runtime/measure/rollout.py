"""Generation of made-up prompts: by the engine of a run, or by vLLM as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plans.dataflow import Role
from runtime.context import RankContext
from runtime.engines.vllm import VLLMEngine
from runtime.engines.vllm_bare import BareVLLM
from runtime.measure.clock import timed
from runtime.measure.machine import provenance
from runtime.measure.made_up import random_prompts
from runtime.policy import initial_weights
from runtime.run import seat_of
from runtime.sharing import part


def measure(context: RankContext, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row: the whole batch of a step, prompts and responses of full length."""
    plan, repeats = context.plan, int(asked["repeats"])
    placement = plan.placement(Role.ACTOR_ROLLOUT)
    assert placement.rollout is not None
    layout, job = placement.layout, plan.job
    seat = seat_of(context)
    folder = context.base / job.model.path
    engine: VLLMEngine | BareVLLM
    with context.outside("start"):
        if asked["bare"]:
            engine = BareVLLM(folder, layout.tp, placement.rollout, plan.precision)
        else:
            engine = VLLMEngine(
                folder=folder,
                model=plan.model,
                layout=layout,
                settings=placement.rollout,
                precision=plan.precision,
                aliases={},
                job=seat.job,
                rank=seat.rank,
                local_rank=seat.local_rank,
                shared_memory=seat.shared_memory,
            )
            engine.load_weights(initial_weights(plan, context.base / plan.job.model.path).items())
    rows = part(job.batch.sequences, layout.coordinates(context.rank)["dp"], layout.dp)
    batch, tokens = job.batch, job.tokens
    asked_for = random_prompts(
        plan.model, job.seed, batch.prompts, tokens.prompt, tokens.response, batch.samples
    )
    requests = asked_for[rows.slice]
    timing = timed(lambda: engine.generate(requests), repeats, warm_ups=1)
    made = batch.sequences * tokens.response
    yield {
        "model": job.model.path,
        "parameters": plan.model.parameter_count,
        "rollout": {"tp": layout.tp, "dp": layout.dp},
        "what": "vLLM alone" if asked["bare"] else "engine",
        "sequences": batch.sequences,
        "prompt_tokens": tokens.prompt,
        "response_tokens": tokens.response,
        "concurrency": placement.rollout.concurrency,
        **timing.milliseconds(),
        "tokens_per_second": round(made / timing.median, 1),
        "tokens_per_second_per_rank": round(made / timing.median / plan.world_size, 1),
        **provenance(context, asked),
    }
    engine.close()
