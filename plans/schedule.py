"""The schedule of a weight switch between two layouts over the same ranks.

Nothing is enumerated for all ranks: what a rank does follows from its standing in the two
layouts and the pieces of each part, so the row of one rank is computed when asked.

Ranks of an island read each other's memory: what comes from one of them is read in place,
without a message. All other messages travel in phases. With training shards numbered
x = stage * tp + coordinate, in phase j a rank receives from shard x + j and sends to shard
x - j (mod their number), each message cut into buckets. Every rank walks (phase, bucket) in
ascending order with at most one bucket each way, and both ends of a message know it by the
same (phase, bucket): nobody waits for a later round than its own, so nobody waits for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from plans.layout import ParallelLayout
from plans.model import ModelSpec
from plans.overlap import Piece, RowBytes, Supply, aliases, supplies
from plans.proof import proof
from plans.shards import MEGATRON, VLLM, Part, Shards, layer_range, tensor_prefix
from plans.transfer import Bucket, Round, Row, Transfer, in_buckets

# What fills (rollout coordinate, rollout part) from a training part, grouped by training
# coordinate; None: any of them.
PartPieces = Mapping[tuple[int, Part, Part], Mapping[int | None, tuple[Piece, ...]]]


@dataclass(frozen=True, slots=True)
class Standing:
    """A rank's place in both layouts. All that a rank receives follows from it."""

    tp: int
    stage: int
    rollout_tp: int
    rollout_stage: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReshardSchedule:
    """The switch of one model between two layouts over the same ranks; made by `build`.

    `rotations` pair data-parallel replicas: a rank of replica d on stage a takes what it
    needs of stage b from replica d + rotations[a, b]. Runs of `island_ranks` ranks are islands.
    """

    model: ModelSpec
    train: ParallelLayout
    rollout: ParallelLayout
    bucket_bytes: int
    island_ranks: int
    row_bytes: RowBytes
    train_boxes: Shards
    rollout_boxes: Shards
    pieces: PartPieces
    rotations: Mapping[tuple[int, int], int]

    def row(self, rank: int) -> Row:
        """What `rank` aliases, copies, sends and receives."""
        here = self.standing(rank)
        same = self._alias_names(here)
        own = self._message(rank, (here.tp, here.stage))
        return Row(
            rank=rank,
            aliases=tuple(same.items()),
            copies=tuple(transfer for transfer in own if transfer.destination not in same),
            reads=tuple(self._reads(rank, here)),
            rounds=tuple(self._rounds(rank, here)),
            proof=proof(
                rank,
                model=self.model,
                train=self.train,
                rollout=self.rollout,
                train_boxes=self.train_boxes,
                rollout_boxes=self.rollout_boxes,
            ),
        )

    def standing(self, rank: int) -> Standing:
        train, rollout = self.train.coordinates(rank), self.rollout.coordinates(rank)
        return Standing(train["tp"], train["pp"], rollout["tp"], rollout["pp"])

    def supplies(self, here: Standing) -> tuple[Supply, ...]:
        return supplies(
            self.model,
            train_pp=self.train.pp,
            train_stage=here.stage,
            rollout_pp=self.rollout.pp,
            rollout_stage=here.rollout_stage,
        )

    def supplier(self, rank: int, shard: tuple[int, int]) -> int:
        """The rank that sends `rank` what it needs of training shard (tp, stage)."""
        place = self.train.coordinates(rank)
        replica = (place["dp"] + self.rotations[place["pp"], shard[1]]) % self.train.dp
        return self.train.rank_at(tp=shard[0], pp=shard[1], dp=replica, cp=place["cp"])

    def together(self, one: int, other: int) -> bool:
        """Whether two ranks are of one island."""
        return one // self.island_ranks == other // self.island_ranks

    def _receiver(self, rank: int, shard: tuple[int, int]) -> int:
        """The rank of training shard (tp, stage) that `rank` supplies: `supplier` inverted."""
        place = self.train.coordinates(rank)
        replica = (place["dp"] - self.rotations[shard[1], place["pp"]]) % self.train.dp
        return self.train.rank_at(tp=shard[0], pp=shard[1], dp=replica, cp=place["cp"])

    def _phases(self, rank: int, here: Standing) -> Iterator[tuple[tuple[int, int], int]]:
        """In each phase the training shard (tp, stage) that is taken, and the rank given to."""
        count = self.train.tp * self.train.pp
        own = here.stage * self.train.tp + here.tp
        for phase in range(1, count):
            after, before = (divmod((own + way) % count, self.train.tp) for way in (phase, -phase))
            yield (after[1], after[0]), self._receiver(rank, (before[1], before[0]))

    def _reads(self, rank: int, here: Standing) -> Iterator[Transfer]:
        for source, _ in self._phases(rank, here):
            if self.together(rank, self.supplier(rank, source)):
                yield from self._message(rank, source)

    def _rounds(self, rank: int, here: Standing) -> Iterator[Round]:
        for phase, (source, receiver) in enumerate(self._phases(rank, here), start=1):
            arriving = self._buckets(rank, source)
            leaving = self._buckets(receiver, (here.tp, here.stage))
            for number, (out, into) in enumerate(zip_longest(leaving, arriving)):
                yield Round(
                    number=(phase, number),
                    send=Bucket(peer=receiver, transfers=out) if out else None,
                    receive=Bucket(peer=into[0].source_rank, transfers=into) if into else None,
                )

    def _buckets(self, rank: int, shard: tuple[int, int]) -> Iterator[tuple[Transfer, ...]]:
        """The messages in which `rank` gets a training shard; none within an island."""
        if not self.together(rank, self.supplier(rank, shard)):
            yield from in_buckets(self._message(rank, shard), self.bucket_bytes)

    def _message(self, rank: int, shard: tuple[int, int]) -> list[Transfer]:
        """All that `rank` takes from a training shard (tp, stage), in the order of the model."""
        here = self.standing(rank)
        ranks = (self.supplier(rank, shard), rank)
        firsts = self._first_layers(shard[1], here.rollout_stage)
        return [
            _transfer(piece, layer, ranks, firsts)
            for supply in self.supplies(here)
            if supply.stage == shard[1]
            for layer in supply.layers
            for coordinate, group in self._pieces(here, supply).items()
            if shard[0] == (here.tp if coordinate is None else coordinate)
            for piece in group
        ]

    def _first_layers(self, stage: int, rollout_stage: int) -> tuple[int, int]:
        return (
            layer_range(self.model, self.train.pp, stage).start,
            layer_range(self.model, self.rollout.pp, rollout_stage).start,
        )

    def _pieces(self, here: Standing, supply: Supply) -> Mapping[int | None, tuple[Piece, ...]]:
        return self.pieces[here.rollout_tp, supply.part, supply.source_part]

    def _alias_names(self, here: Standing) -> dict[str, str]:
        """Rollout parameters that are training parameters of the same rank, by full name."""
        first, own_first = self._first_layers(here.stage, here.rollout_stage)
        names = {}
        for supply in self.supplies(here):
            same = self.part_aliases(here, supply)
            for layer in supply.layers:
                for name, source in same.items():
                    if layer is None:
                        names[name] = source
                    else:
                        full = VLLM.parameter_in_layer(name, layer, own_first)
                        names[full] = MEGATRON.parameter_in_layer(source, layer, first)
        return names

    def part_aliases(self, here: Standing, supply: Supply) -> dict[str, str]:
        """`overlap.aliases` of one part; empty when the part comes from another stage."""
        if supply.stage != here.stage:
            return {}
        return aliases(
            self.train_boxes[supply.source_part, here.tp],
            self.rollout_boxes[supply.part, here.rollout_tp],
        )


def _transfer(
    piece: Piece, layer: int | None, ranks: tuple[int, int], firsts: tuple[int, int]
) -> Transfer:
    """A piece between (source, destination) ranks whose stages start at these layers."""
    source, destination, tensor = piece.source, piece.destination, piece.tensor
    if layer is not None:
        source = MEGATRON.parameter_in_layer(source, layer, firsts[0])
        destination = VLLM.parameter_in_layer(destination, layer, firsts[1])
        tensor = tensor_prefix(layer) + tensor
    return Transfer(
        source_rank=ranks[0],
        destination_rank=ranks[1],
        source=source,
        source_offset=piece.source_offset,
        destination=destination,
        destination_offset=piece.destination_offset,
        dim=piece.dim,
        length=piece.length,
        tensor=tensor,
        row_bytes=piece.row_bytes,
    )
