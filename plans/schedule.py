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
from itertools import zip_longest

from plans.cut import Cut, Standing
from plans.overlap import Supply, aliases
from plans.proof import proof
from plans.shards import MEGATRON, VLLM
from plans.transfer import Bucket, Round, Row, Transfer, in_buckets
from plans.values import frozen


@frozen
class ReshardSchedule(Cut):
    """The switch of one model between two layouts over the same ranks; made by `build`.

    `rotations` pair data-parallel replicas: a rank of replica d on stage a takes what it
    needs of stage b from replica d + rotations[a, b].
    """

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
                tensors=self.tensors,
                train=self.train,
                train_boxes=self.train_boxes,
                rollout_boxes=self.rollout_boxes,
                rolled=self.rolled(rank),
            ),
        )

    def standing(self, rank: int) -> Standing:
        train, rollout = self.train.coordinates(rank), self.rollout.coordinates(rank)
        return Standing(train["tp"], train["pp"], rollout["tp"], rollout["pp"])

    @property
    def pairing(self) -> list[tuple[tuple[int, int], int]]:
        """What decides who gives to whom, beside the layouts."""
        return sorted(self.rotations.items())

    def supplier(self, rank: int, shard: tuple[int, int]) -> int:
        """The rank that sends `rank` what it needs of training shard (tp, stage)."""
        place = self.train.coordinates(rank)
        replica = (place["dp"] + self.rotations[place["pp"], shard[1]]) % self.train.dp
        return self.train.rank_at(tp=shard[0], pp=shard[1], dp=replica, cp=place["cp"])

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
        return self.message((self.supplier(rank, shard), rank), shard, self.standing(rank))

    def _alias_names(self, here: Standing) -> dict[str, str]:
        """Rollout parameters that are training parameters of the same rank, by full name."""
        places, own_places = self.layer_places(here.stage, here.rollout_stage)
        names = {}
        for supply in self.supplies(here):
            same = self.part_aliases(here, supply)
            for layer in supply.layers:
                for name, source in same.items():
                    if layer is None:
                        names[name] = source
                    else:
                        full = VLLM.parameter_in_layer(name, layer, own_places[layer])
                        place = places[layer]
                        names[full] = MEGATRON.parameter_in_layer(source, layer, place)
        return names

    def part_aliases(self, here: Standing, supply: Supply) -> dict[str, str]:
        """`overlap.aliases` of one part; empty when the part comes from another stage."""
        if supply.stage != here.stage:
            return {}
        return aliases(
            self.train_boxes[supply.source_part, here.tp],
            self.rollout_boxes[supply.part, here.rollout_tp],
        )
