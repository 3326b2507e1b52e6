"""Costs: every way to run each role of a job, as a search compares them (`choice.Tables`).

Layouts differ by many degrees, but a layer by few: what does not depend on the number of
replicas is computed once and kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from plans.bytes.account import Kind
from plans.choice import Choice, Ends, Switch
from plans.costs.footprint import Lasting, Slice, lasting, slices
from plans.costs.generating import response_lengths
from plans.costs.phases import rollout_phase_seconds, samples_of, train_phase_seconds
from plans.costs.resident import rollout_account
from plans.costs.settings import rollout_settings, train_settings
from plans.costs.switching import apart_parts, moved, moved_apart, switch_parts
from plans.costs.work import LEARNS, execution, role_shape, work_of, working_role
from plans.dataflow import Phase, Role, Stage, phases_of, roles_of
from plans.layout import ParallelLayout
from plans.layouts import Layouts, layouts_of, pool_sizes
from plans.placement import RolloutSettings, TrainSettings
from plans.resources import AXES
from plans.space import RUNNABLE, Feature, Space
from plans.times.lengths import Lengths
from plans.workload import Workload

STAGES = tuple(Stage)
# What of a rollout's account is there in every phase.
LASTING = (Kind.WEIGHTS, Kind.GRAPHS, Kind.KV_CACHE)
Both = tuple[tuple[Slice, ...], tuple[Slice, ...]]


class Costs:
    """The tables of a workload, group of nodes by group."""

    def __init__(self, workload: Workload, space: Space = RUNNABLE) -> None:
        self._groups = [NodeCosts(one, space) for one in workload.groups]

    def sizes(self, role: Role, group: int = 0) -> Sequence[int]:
        """Numbers of ranks on which the role has a legal layout, ascending."""
        return self._groups[group].sizes(role)

    def count(self, role: Role, ranks: int, group: int = 0) -> int:
        """How many choices there are; nothing is costed."""
        return self._groups[group].count(role, ranks)

    def floor(self, role: Role, ranks: int, group: int = 0) -> tuple[float, ...]:
        """Seconds a stage below which no choice on that many ranks or fewer can be."""
        return self._groups[group].floor(role, ranks)

    def choices(self, role: Role, ranks: int, group: int = 0) -> Sequence[Choice]:
        """Every legal layout with every setting of the space."""
        return self._groups[group].choices(role, ranks)

    def choices_in(self, role: Role, layout: ParallelLayout, group: int = 0) -> Sequence[Choice]:
        """The choices of one layout."""
        return self._groups[group].choices_in(role, layout)

    def layouts(self, role: Role, ranks: int, group: int = 0) -> Layouts:
        """The legal layouts of a role, and why the others are not."""
        return self._groups[group].layouts(role, ranks)

    def switch(self, train: Choice, rollout: Choice, *, together: bool) -> Switch:
        """The switch between two choices, on the same ranks or on different pools."""
        return self._groups[0].switch(train, rollout, together=together)

    def capacity(self, group: int = 0) -> float:
        """Device bytes of a rank, the reserve of the process taken off."""
        return self._groups[group].capacity

    def host_capacity(self, group: int = 0) -> float:
        """Host bytes of a rank's share of its node."""
        return self._groups[group].host_capacity


class NodeCosts:
    """The same on one kind of node; a role's tables are built when they are asked for."""

    def __init__(self, workload: Workload, space: Space) -> None:
        self.workload = workload
        self.space = space
        self._layouts: dict[tuple[Role, int], Layouts] = {}
        self._lasting: dict[tuple[object, ...], Lasting] = {}
        self._slices: dict[tuple[object, ...], Both] = {}
        self._lengths: dict[int, Lengths] = {}
        self._phases: dict[Role, tuple[Phase, ...]] = {
            role: tuple(one for one in phases_of(workload.job) if one.role == role)
            for role in roles_of(workload.job)
        }
        self._shapes = {role: role_shape(workload, role) for role in self._phases}

    def sizes(self, role: Role) -> Sequence[int]:
        world = self.workload.world_size
        several = self.space.allows(Feature.POOLS)
        sizes = pool_sizes(self.workload, world) if several else [world]
        return [ranks for ranks in sizes if self.layouts(role, ranks).legal]

    def count(self, role: Role, ranks: int) -> int:
        legal = self.layouts(role, ranks).legal
        if role == Role.ACTOR_ROLLOUT:
            return sum(len(list(rollout_settings(self.workload, one, self.space))) for one in legal)
        return sum(len(list(train_settings(self.workload, role, one, self.space))) for one in legal)

    def floor(self, role: Role, ranks: int) -> tuple[float, ...]:
        """Arithmetic at the peak of that many devices."""
        rate = ranks * self.workload.machine.device.flops_per_second("bf16")
        return self._by_stage(
            (phase.stage, work_of(self.workload, phase)[1] / rate) for phase in self._phases[role]
        )

    def choices(self, role: Role, ranks: int) -> Sequence[Choice]:
        return [
            choice
            for layout in self.layouts(role, ranks).legal
            for choice in self._in_layout(role, layout)
        ]

    def choices_in(self, role: Role, layout: ParallelLayout) -> list[Choice]:
        return list(self._in_layout(role, layout))

    def layouts(self, role: Role, ranks: int) -> Layouts:
        key = (role, ranks)
        if key not in self._layouts:
            asked = getattr(self.workload.job.roles, role)
            fixed = {axis: degree for axis in AXES if (degree := getattr(asked, axis, None))}
            self._layouts[key] = layouts_of(self.workload, role, ranks, self.space, fixed)
        return self._layouts[key]

    def switch(self, train: Choice, rollout: Choice, *, together: bool) -> Switch:
        work, shape = self.workload, self._shapes[Role.ACTOR_ROLLOUT]
        if together:
            what = moved(work, shape, train.layout, rollout.layout)
            parts = switch_parts(work, what)
        else:
            what = moved_apart(work, shape, rollout.layout)
            parts = apart_parts(work, shape, rollout.layout)
        return Switch(
            seconds=sum(parts.values()),
            staging=(what.staging, what.staging),
            shared=(what.shared, what.shared),
        )

    @property
    def capacity(self) -> float:
        """Device bytes of a rank, the reserve of the process taken off."""
        hardware = self.workload.hardware
        return float(hardware.memory_bytes - hardware.reserve_bytes)

    @property
    def host_capacity(self) -> float:
        """Host bytes of a rank's share of its node."""
        return self.workload.hardware.host_bytes / self.workload.ranks_per_node

    def _in_layout(self, role: Role, layout: ParallelLayout) -> Iterator[Choice]:
        if role == Role.ACTOR_ROLLOUT:
            for rolling in rollout_settings(self.workload, layout, self.space):
                yield self._rollout_choice(layout, rolling)
            return
        smallest: tuple[float, TrainSettings] | None = None
        for settings in train_settings(self.workload, role, layout, self.space):
            need = self._need(role, layout, settings)
            if need <= self.capacity:
                yield self._train_choice(role, layout, settings)
                smallest = (0.0, settings)
            elif smallest is None or need < smallest[0]:
                smallest = (need, settings)
        if smallest and smallest[0]:
            # It cannot be run, but says how much is missing.
            yield self._train_choice(role, layout, smallest[1])

    def _need(self, role: Role, layout: ParallelLayout, settings: TrainSettings) -> float:
        """Bytes of the fuller end, whatever else is there."""
        resident = self._resident(role, layout, settings).device
        both = zip(resident, self._transient(role, layout, settings), strict=True)
        return max(a + b for a, b in both)

    def _train_choice(self, role: Role, layout: ParallelLayout, settings: TrainSettings) -> Choice:
        held = self._resident(role, layout, settings)
        return Choice(
            role=role,
            layout=layout,
            seconds=self._by_stage(
                (
                    phase.stage,
                    train_phase_seconds(self.workload, self._shapes[role], phase, layout, settings),
                )
                for phase in self._phases[role]
            ),
            resident=held.device,
            transient=self._transient(role, layout, settings),
            train=settings,
            host_bytes=held.host,
        )

    def _rollout_choice(self, layout: ParallelLayout, settings: RolloutSettings) -> Choice:
        role = Role.ACTOR_ROLLOUT
        account = rollout_account(self.workload, layout, settings)
        kept = account.of(*(LASTING[:2] if settings.sleep else LASTING))
        rest = account.total - kept
        return Choice(
            role=role,
            layout=layout,
            seconds=self._by_stage(
                (phase.stage, self._rollout_seconds(phase, layout, settings))
                for phase in self._phases[role]
                if phase.name != "reshard"
            ),
            resident=(kept, kept),
            transient=(rest, rest),
            rollout=settings,
        )

    def _rollout_seconds(
        self, phase: Phase, layout: ParallelLayout, settings: RolloutSettings
    ) -> float:
        samples = samples_of(self.workload, phase)
        if samples not in self._lengths:
            self._lengths[samples] = response_lengths(self.workload, samples)
        shape, lengths = self._shapes[Role.ACTOR_ROLLOUT], self._lengths[samples]
        return rollout_phase_seconds(self.workload, shape, phase, layout, settings, lengths)

    def _by_stage(self, timed: Iterable[tuple[Stage, float]]) -> tuple[float, ...]:
        seconds = dict.fromkeys(STAGES, 0.0)
        for stage, spent in timed:
            seconds[stage] += spent
        return tuple(seconds.values())

    def _resident(self, role: Role, layout: ParallelLayout, settings: TrainSettings) -> Lasting:
        key = (role, layout, settings.optimizer_offload)
        if key not in self._lasting:
            self._lasting[key] = lasting(self.workload, role, layout, settings)
        return self._lasting[key]

    def _transient(self, role: Role, layout: ParallelLayout, settings: TrainSettings) -> Ends:
        """The most of any phase in which the role works, at both ends."""
        names = [phase.name for phase in self._phases[role]]
        learns = any(name in LEARNS for name in names)
        scores = any(
            name not in LEARNS and working_role(self.workload, name) == role for name in names
        )
        run = execution(self.workload, layout, settings, self.workload.mini_batch)
        first, last = (
            max(
                max(one.learning(run) if learns else 0.0, one.scoring(run) if scores else 0.0)
                for one in end
            )
            for end in self._both(role, layout, settings)
        )
        return first, last

    def _both(self, role: Role, layout: ParallelLayout, settings: TrainSettings) -> Both:
        axes = (layout.tp, layout.pp, layout.cp, layout.ep, layout.vpp)
        key = (role, axes, settings.recompute)
        if key not in self._slices:
            self._slices[key] = slices(self.workload, role, layout, settings)
        return self._slices[key]
