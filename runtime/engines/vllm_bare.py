"""vLLM as it comes, to measure the rollout engine against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plans.placement import RolloutSettings
from runtime.batch import Request
from runtime.engines.vllm_plugin import DTYPES, device_arguments


class BareVLLM:
    """`vllm.LLM` with random weights and the limits of a plan, in every rank's own process."""

    def __init__(self, folder: Path, tp: int, settings: RolloutSettings, precision: str) -> None:
        from vllm import LLM

        self._llm: Any = LLM(
            **device_arguments(),
            model=str(folder),
            load_format="dummy",
            skip_tokenizer_init=True,
            dtype=DTYPES[precision],
            tensor_parallel_size=tp,
            distributed_executor_backend="external_launcher",
            max_model_len=settings.max_tokens,
            max_num_seqs=settings.concurrency,
            kv_cache_memory_bytes=settings.kv_cache_bytes,
            seed=0,
        )

    def generate(self, requests: Sequence[Request]) -> list[int]:
        """Generate to full length; the number of tokens of each response."""
        from vllm import SamplingParams

        prompts = [{"prompt_token_ids": list(request.tokens)} for request in requests]
        sampling = [
            SamplingParams(
                temperature=request.temperature,
                max_tokens=request.max_tokens,
                ignore_eos=True,
                logprobs=0,
                detokenize=False,
            )
            for request in requests
        ]
        done = self._llm.generate(prompts, sampling, use_tqdm=False)
        return [len(one.outputs[0].token_ids) for one in done]

    def close(self) -> None:
        """Nothing: deleting an LLM would destroy torch.distributed's default group."""
