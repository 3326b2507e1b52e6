"""A run on one rank, from its first step to its last: warm up, measure, learn, measure, export."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from plans.dataflow import FILL, Role
from plans.record import StepRecord
from runtime import checkpoint
from runtime.assembly import Engines
from runtime.context import RankContext
from runtime.engines.megatron_lora import AdapterEngine
from runtime.evaluation import Evaluation
from runtime.events import EventLog
from runtime.experience import ExperienceWriter
from runtime.export import export, export_adapter
from runtime.given import GivenWork
from runtime.loop import StepWork
from runtime.metrics import MetricsWriter, Summary, write_summary
from runtime.policy import warm_weights
from runtime.prompt import Prompt
from runtime.stragglers import watched
from runtime.supervised import warm_up
from runtime.tokenizer import Tokenizer
from runtime.versions import run_versions
from runtime.walk import walk

SAMPLES_SHOWN = 4
# So many events tell how the warm-up goes.
SUPERVISED_EVENTS = 10


@dataclass(slots=True)
class Progress:
    """Where a run stands; saved with each checkpoint, so a resumed run goes on counting."""

    step: int = 0
    accuracy_before: float | None = None
    wall_seconds: float = 0.0
    step_seconds: float = 0.0
    generated_tokens: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def state(self) -> dict[str, float | None]:
        return {
            "accuracy_before": self.accuracy_before,
            "wall_seconds": self.seconds,
            "step_seconds": self.step_seconds,
            "generated_tokens": self.generated_tokens,
        }

    @property
    def seconds(self) -> float:
        """Wall seconds of all attempts, start-up included."""
        return self.wall_seconds + time.monotonic() - self.started

    @property
    def throughput(self) -> float:
        """Response tokens per second of the RL steps, over the whole job."""
        return self.generated_tokens / self.step_seconds if self.step_seconds else 0.0


@dataclass(slots=True, kw_only=True)
class Session:
    """What a rank holds while it works: its engines, its data, and the books of the run."""

    context: RankContext
    engines: Engines
    shown: Sequence[Prompt]
    tokenizer: Tokenizer
    work: StepWork | GivenWork
    evaluation: Evaluation | None
    events: EventLog
    experiences: ExperienceWriter
    saver: checkpoint.Saver
    progress: Progress

    @property
    def export_folder(self) -> Path:
        return self.context.run_folder / "export"

    @property
    def warm_folder(self) -> Path:
        """The model after the warm-up: the reference policy of the RL phase."""
        return self.context.run_folder / "supervised"

    def prepare(self) -> None:
        """Stand where the last attempt stopped, or at the start: warmed up and measured."""
        if not (self.context.resume and self._resume()):
            self._warm_up()
            self.progress.accuracy_before = self._accuracy("before")
            self._save()

    def learn(self) -> bool:
        """Walk the RL steps; whether the last one of the job is done."""
        plan, progress = self.context.plan, self.progress
        metrics = None
        if self.context.rank == 0:
            metrics = MetricsWriter(self.context.run_folder, after_step=progress.step)
        if plan.job.algorithm.lag:
            with self.context.outside(FILL):
                self.work.fill(progress.step)
                self._meet(FILL)
        steps = range(progress.step + 1, self.context.last_step + 1)
        walked = walk(plan, self.context.control, self.work, self.context.recorder, steps)
        heartbeats = self.context.attempt_folder / "heartbeat"
        for record in watched(walked, self.events, heartbeats):
            if self._book(record, metrics):
                break
        with self.context.outside("checkpoint"):
            self.saver.wait()
        if metrics:
            metrics.close()
        return progress.step == plan.job.steps

    def conclude(self) -> None:
        """Measure the trained policy, export it, and sum the run up."""
        after = self._accuracy("after")
        with self.context.outside("checkpoint"):
            self._export(self.export_folder)
            if self.context.plan.job.lora:
                self._export_adapter(self.context.run_folder / "adapter")
        if self.context.rank == 0:
            summary = Summary(
                accuracy_before=self.progress.accuracy_before,
                accuracy_after=after,
                steps=self.progress.step,
                wall_seconds=round(self.progress.seconds, 3),
                tokens_per_second=round(self.progress.throughput, 3),
                versions=run_versions(self.context.control),
                plan_digest=self.context.plan.digest,
            )
            write_summary(self.context.run_folder, summary)
        self.events.event(
            "done",
            step=self.progress.step,
            accuracy_before=self.progress.accuracy_before,
            accuracy_after=after,
            wall_seconds=round(self.progress.seconds, 3),
        )

    def _resume(self) -> bool:
        context = self.context
        with context.outside("checkpoint"):
            found = checkpoint.load_latest(
                self.saver.engines, context.control, context.run_folder, context.plan, self.events
            )
            if found is None:
                return False
            self._settle_reference()
        self.progress.step = found.step
        self.progress.accuracy_before = found.state["accuracy_before"]
        self.progress.wall_seconds = found.state["wall_seconds"]
        self.progress.step_seconds = found.state["step_seconds"]
        self.progress.generated_tokens = found.state["generated_tokens"]
        self.work.restore(found.state["work"])
        self.events.event("resume", step=found.step, folder=found.folder.name)
        return True

    def _warm_up(self) -> None:
        job = self.context.plan.job
        if job.supervised is None:
            return
        with self.context.outside("supervised"):
            walked = warm_up(
                self.context.plan, job.supervised, self.engines, self.shown, self.tokenizer
            )
            every = max(1, job.supervised.steps // SUPERVISED_EVENTS)
            for step, metrics in walked:
                if step % every == 0 or step == job.supervised.steps:
                    self.events.event(
                        "supervised", step=step, steps=job.supervised.steps, **metrics
                    )
            self._meet("supervised")
        with self.context.outside("checkpoint"):
            adapted = self.context.plan.job.lora is not None
            (self._export_adapter if adapted else self._export)(self.warm_folder)
            weights = self._warm_weights()
            if Role.CRITIC in self.engines.trained:
                self.engines.trained[Role.CRITIC].fill(weights)
            self._settle_reference()

    def _meet(self, name: str) -> None:
        """Wait for the pools that have more to do in a phase outside of the steps."""
        seconds = self.context.plan.phase(name).deadline_seconds
        self.context.control.barrier(name, seconds)

    def _settle_reference(self) -> None:
        """Give the reference the weights the RL phase starts from, when those were trained here."""
        if Role.REFERENCE in self.engines.scored and self.context.plan.job.supervised:
            self.engines.scored[Role.REFERENCE].fill(self._warm_weights())

    def _warm_weights(self) -> Mapping[str, Tensor]:
        return warm_weights(self.context.plan, self.warm_folder, self._model_folder)

    def _accuracy(self, when: str) -> float | None:
        if self.evaluation is None:
            return None
        with self.context.outside("evaluate"):
            self.engines.switch(verify=True)
            accuracy = self.evaluation.accuracy(
                self.context.plan.phase("evaluate").deadline_seconds
            )
        self.events.event("evaluate", when=when, step=self.progress.step, accuracy=accuracy)
        return accuracy

    def _book(self, record: StepRecord, metrics: MetricsWriter | None) -> bool:
        """Write down a step and do what is due after it; whether somebody asked to stop."""
        context, job = self.context, self.context.plan.job
        self.progress.step = record.step
        self.progress.generated_tokens += self.work.response_tokens
        self.progress.step_seconds += record.metrics["timing_s/step"]
        record.metrics.update(_rates(record, self.work.response_tokens))
        if job.evaluate.every and record.step % job.evaluate.every == 0:
            record.metrics["eval/accuracy"] = self._accuracy("during") or 0.0
        began = time.perf_counter()
        if self.work.experience:
            self.experiences.write(self.work.experience)
        record.metrics["timing_s/experience"] = time.perf_counter() - began
        self.saver.poll()
        record.metrics["timing_s/checkpoint"] = self.saver.held_seconds()
        if metrics:
            metrics.step(record)
            metrics.samples(record.step, self.work.samples(SAMPLES_SHOWN))
        stop = context.stop_asked()
        due = record.step % context.plan.checkpoint_every == 0
        if due or stop or record.step == context.last_step:
            if metrics:
                metrics.sync()
            self._save()
        return stop

    def _save(self) -> None:
        with self.context.outside("checkpoint"):
            state = {**self.progress.state(), "work": self.work.state()}
            self.saver.save(self.progress.step, state)

    def _export(self, folder: Path) -> None:
        actor, context = self.engines.trained.get(Role.ACTOR_TRAIN), self.context
        export(actor, context.control, folder, self._model_folder, writes=self._writes)

    def _export_adapter(self, folder: Path) -> None:
        actor, context = self.engines.trained.get(Role.ACTOR_TRAIN), self.context
        lora = context.plan.job.lora
        assert lora is not None, "only adapters are exported as such"
        assert actor is None or isinstance(actor, AdapterEngine), "an actor with lora has adapters"
        export_adapter(
            actor, context.control, folder, self._model_folder, lora, writes=self._writes
        )

    @property
    def _model_folder(self) -> Path:
        return self.context.base / self.context.plan.job.model.path

    @property
    def _writes(self) -> bool:
        """Whether this rank writes what the ranks of the actor gather."""
        return self.context.plan.place(Role.ACTOR_TRAIN, self.context.rank) == 0


def _rates(record: StepRecord, generated_tokens: float) -> dict[str, float]:
    """Tokens per second over the whole job, and the share of the step no phase accounts for."""
    times = {n.removeprefix("timing_s/"): s for n, s in record.metrics.items() if "timing_s/" in n}
    step = times.pop("step")
    return {
        "perf/throughput": generated_tokens / step,
        "perf/idle_fraction": max(0.0, 1 - sum(times.values()) / step),
    }
