"""From prompts to sequences: each replica generates its rows, then every rank knows them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from plans.layout import ParallelLayout
from plans.values import frozen
from runtime.batch import Completion, Request, Sequences
from runtime.engines import RolloutEngine
from runtime.prompt import Prompt
from runtime.sharing import Rows, part, share


@frozen
class Generator:
    """The rollout engine of this rank, and which part of a batch its replica serves.

    `place` is the rank's number in the layout; a rank outside of it has no engine, serves no
    rows, and learns what the others generate. `group` holds all who learn it; None is torch's
    default group.
    """

    engine: RolloutEngine | None
    layout: ParallelLayout
    place: int | None
    stop_token: int
    pad_token: int
    response_tokens: int
    prompt_tokens: int
    group: dist.ProcessGroup | None = None

    @property
    def speaks(self) -> bool:
        """Whether this rank hands on its replica's completions; tensor neighbours hold the same."""
        return self.place is not None and self.layout.coordinates(self.place)["tp"] == 0

    def rows(self, count: int) -> Rows:
        if self.place is None:
            return Rows(0, 0)
        return part(count, self.layout.coordinates(self.place)["dp"], self.layout.dp)

    def complete(
        self, prompts: Sequence[Prompt], temperature: float, seeds: Sequence[int]
    ) -> list[Completion]:
        """Completions of the given prompts, one a prompt, in order; temperature 0 is greedy."""
        if self.engine is None:
            return []
        requests = [
            Request(
                tokens=prompt.tokens,
                max_tokens=self.response_tokens,
                temperature=temperature,
                seed=seed,
                stop_token=self.stop_token,
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return self.engine.generate(requests)

    def total(self, count: int, like: Tensor) -> int:
        """The sum over the replicas of what each has counted, on every rank."""
        replicas = self.layout.dp
        mine = self.rows(replicas)
        local = torch.tensor([count]) if self.speaks else None
        shape, whole = (replicas,), like.to(torch.int64)
        return int(share(local, mine.indices, shape, whole, self.group).sum())

    def assemble(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        rewards: Sequence[float],
        like: Tensor,
    ) -> tuple[Sequences, Tensor, Tensor]:
        """All ranks' rows as (sequences, rollout log-probs [n, s - 1], rewards [n]), on every rank.

        `prompts` are those of the whole batch; completions and rewards are this replica's.
        `like` is a float32 tensor on the device the collectives use.
        """
        count, width = len(prompts), self.prompt_tokens + self.response_tokens
        rows = self.rows(count)
        mine = prompts[rows.slice]
        tokens = torch.full((len(mine), width), self.pad_token, dtype=torch.int32)
        log_probs = torch.zeros(len(mine), width - 1)
        lengths = torch.zeros(len(mine), dtype=torch.int32)
        for place, (prompt, done) in enumerate(zip(mine, completions, strict=True)):
            start, stop = len(prompt.tokens), len(prompt.tokens) + len(done.tokens)
            tokens[place, :stop] = torch.tensor(prompt.tokens + done.tokens)
            log_probs[place, start - 1 : stop - 1] = torch.tensor(done.log_probs)
            lengths[place] = stop

        def everyone(local: Tensor) -> Tensor:
            spoken = local if self.speaks else None
            shape = (count, *local.shape[1:])
            return share(spoken, rows.indices, shape, like.to(local.dtype), self.group)

        whole_lengths = everyone(lengths).long()
        longest = int(whole_lengths.max())
        sequences = Sequences(
            tokens=everyone(tokens)[:, :longest].long(),
            prompt_lengths=torch.tensor([len(prompt.tokens) for prompt in prompts]),
            lengths=whole_lengths,
        )
        return (
            sequences,
            everyone(log_probs)[:, : longest - 1].contiguous(),
            everyone(torch.tensor(list(rewards), dtype=torch.float32)),
        )
