"""What if the job or its machine were another: the changes worth asking about, and the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from plans.estimate import Estimate, estimate_of
from plans.hardware import HardwareSpec, known_hardware
from plans.plan import Plan
from plans.search import Asked, search_workload
from plans.search.result import Search
from plans.source import UserError
from plans.values import frozen
from plans.variant import Change
from plans.workload import Workload

Changes = tuple[Change, ...]
Ask = Callable[[Changes], Estimate]
DEGREES = (1, 2, 4, 8)
ROOMIER = 2
UNADAPTED = "no adapters"


@frozen
class Question:
    """A change of the job, in words."""

    text: str
    changes: Changes


@frozen
class Answer:
    """The estimate of the changed job, planned anew; or why there is no plan for it."""

    question: Question
    estimate: Estimate | None = None
    reason: str = ""


def questions(plan: Plan, hardware: HardwareSpec) -> Iterator[Question]:
    """More and fewer nodes, longer responses, larger batches, fixed degrees, other machines."""
    job, cluster = plan.job, plan.job.cluster
    if not cluster.groups:
        for name, count in (("nodes", cluster.nodes), ("ranks", cluster.ranks)):
            for more in (2 * count, count // 2) if count else ():
                if more:
                    yield _question(f"{more} {name}", ("cluster", name), more)
    tokens = ("tokens", "response")
    yield _question("responses x2", tokens, 2 * job.tokens.response)
    yield _question("responses /2", tokens, max(1, job.tokens.response // 2))
    yield _question("prompts x2", ("batch", "prompts"), 2 * job.batch.prompts)
    yield from [_question(UNADAPTED, ("lora",), None)] * (job.lora is not None)
    for degree in DEGREES:
        yield _question(f"training tp{degree}", ("roles", "actor_train", "tp"), degree)
    for degree in DEGREES:
        yield _question(f"rollout tp{degree}", ("roles", "actor_rollout", "tp"), degree)
    if hardware.platform != "cpu" and not cluster.groups:
        for other in known_hardware():
            if other not in (hardware.name, "cpu"):
                yield _question(other, ("cluster", "hardware"), other)


def roomier(found: Search) -> Answer:
    """What if every device had twice the memory."""
    workload = found.workload
    first, *others = (
        replace(kind, memory_gib=ROOMIER * kind.memory_gib)
        for kind in (workload.hardware, *workload.others)
    )
    larger = replace(workload, hardware=first, others=tuple(others))
    return _searched(f"{ROOMIER} times the memory", larger)


def unadapted(found: Search) -> Answer | None:
    """What if all parameters were trained; None when they are."""
    workload = found.workload
    if workload.job.lora is None:
        return None
    whole = replace(workload, job=workload.job.model_copy(update={"lora": None}))
    return _searched(UNADAPTED, whole)


def answered(question: Question, ask: Ask) -> Answer:
    """The answer to a question, planned anew."""
    try:
        return Answer(question=question, estimate=ask(question.changes))
    except UserError as error:
        return Answer(question=question, reason=str(error))


def _searched(text: str, workload: Workload) -> Answer:
    question = Question(text=text, changes=())
    try:
        return Answer(
            question=question, estimate=estimate_of(search_workload(workload, Asked(shown=1)))
        )
    except UserError as error:
        return Answer(question=question, reason=str(error))


def _question(text: str, at: tuple[str, ...], value: object) -> Question:
    return Question(text=text, changes=(Change(at=at, value=value),))
