"""The supervised warm-up: the actor learns given answers before it learns from its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from plans.dataflow import Role
from plans.plan import Plan
from plans.spec import SupervisedSpec
from runtime.assembly import Engines
from runtime.data import answer_sequences, prompts_of_step
from runtime.given import AnswerObjective
from runtime.prompt import Prompt
from runtime.sharing import Rows, part
from runtime.tokenizer import Tokenizer


def warm_up(
    plan: Plan,
    spec: SupervisedSpec,
    engines: Engines,
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Walk the warm-up; yields (step from 1, metrics) after each optimizer step.

    Nothing on ranks that do not hold the actor.
    """
    if not engines.holds(Role.ACTOR_TRAIN):
        return
    actor = engines.trainer(Role.ACTOR_TRAIN)
    layout = plan.placement(Role.ACTOR_TRAIN).layout
    rows = part(spec.batch, layout.coordinates(engines.rank)["dp"], layout.dp)
    actor.set_learning_rate(spec.lr)
    for step in range(spec.steps):
        chosen = prompts_of_step(
            prompts, step=step, count=spec.batch, seed=plan.job.seed, stream="supervised"
        )
        sequences = answer_sequences(chosen, tokenizer)
        objective = AnswerObjective(sequences.response_mask)(Rows(0, spec.batch), rows.indices)
        yield step + 1, actor.update(sequences.rows(rows.start, rows.stop), objective)
