"""Our losses against TRL's trainers: the same model, the same batch, the same number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from plans.spec import JobSpec
from runtime.batch import Experience, Sequences
from runtime.credit import estimate_advantages
from runtime.data import answer_sequences, pair_sequences, sequences_of
from runtime.given import AnswerObjective, PairObjective
from runtime.objectives import ActorObjective
from runtime.prompt import Prompt
from runtime.sharing import Rows
from runtime.tokenizer import load_tokenizer
from tests.runs import ROOT

pytestmark = pytest.mark.slow
MODEL = ROOT / "examples" / "tiny-qwen2"
PROMPTS = ["1+1=", "12+30=", "7+5=", "40+2="]
ANSWERS = ["2", "42", "12", "42"]
WRONG = ["3", "4", "125", "0"]


def network(folder: Path, seed: int = 3) -> Any:
    """The toy with random weights, read from a folder: TRL reads the reference from there too."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    drawn = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(MODEL))
    drawn.save_pretrained(folder / f"model-{seed}")
    return AutoModelForCausalLM.from_pretrained(folder / f"model-{seed}", dtype="float32").eval()


def hf_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(MODEL)


def log_probs(model: Any, sequences: Sequences) -> Tensor:
    """[n, s - 1]: of token i + 1 at place i; right padding changes nothing before it."""
    logits = model(sequences.tokens).logits[:, :-1]
    picked = sequences.tokens[:, 1:, None]
    return logits.log_softmax(-1).gather(-1, picked).squeeze(-1)


def prompts() -> list[Prompt]:
    tokenizer = load_tokenizer(MODEL)
    return [
        Prompt(index=row, text=text, tokens=tokenizer.encode(text), answer=answer, rejected=wrong)
        for row, (text, answer, wrong) in enumerate(zip(PROMPTS, ANSWERS, WRONG, strict=True))
    ]


def job(algorithm: dict[str, Any], **changes: Any) -> JobSpec:
    sampled = {"reward": "exact", "batch": {"prompts": 2, "samples": 4}}
    return JobSpec.model_validate(
        {
            "name": "toy",
            "model": "toy",
            "algorithm": algorithm,
            "data": {"train": "train.jsonl"},
            "tokens": {"prompt": 8, "response": 6},
            "steps": 1,
            **(changes or sampled),
        }
    )


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    """What every trainer is told: one process, a CPU, fp32, nobody to report to."""
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "gradient_checkpointing": False,
        **more,
    }


def gradients(model: Any, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


def same(model: Any, ours: Tensor, theirs: Tensor) -> None:
    """Equal to 1e-5, loss and gradient."""
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), abs=1e-5)
    mine = gradients(model, ours)
    torch.testing.assert_close(mine, gradients(model, theirs), atol=1e-5, rtol=1e-4)
    assert mine.abs().max() > 1e-4


def experience(model: Any, spec: JobSpec) -> Experience:
    """Two prompts with four responses each, of one to six tokens, sampled by an older policy."""
    generator = torch.Generator().manual_seed(7)
    asked = [row.tokens for row in prompts()[:2] for _ in range(4)]
    lengths = [3, 1, 6, 2, 4, 4, 5, 2]
    answers = [torch.randint(1, 17, (one,), generator=generator).tolist() for one in lengths]
    sequences = sequences_of(asked, answers, pad_token=0)
    with torch.no_grad():
        current = log_probs(model, sequences)
        older = current + 0.3 * torch.randn(current.shape, generator=generator)
    found = Experience(
        step=1,
        sequences=sequences,
        rewards=torch.tensor([1.0, 0, 0.5, 0, 1, 1, 0, 0]),
        rollout_log_probs=older,
        old_log_probs=older,
        reference_log_probs=current - 0.2 if spec.algorithm.kl_weight else None,
        kl_weight=spec.algorithm.kl_weight,
    )
    estimate_advantages(found, spec)
    return found


def padded(rows: list[Tensor], *, left: bool) -> tuple[Tensor, Tensor]:
    """Rows of different lengths as TRL holds them, with their mask."""
    width = max(len(row) for row in rows)
    pads = [(width - len(row), 0) if left else (0, width - len(row)) for row in rows]
    pad = torch.nn.functional.pad
    values = torch.stack([pad(row, one) for row, one in zip(rows, pads, strict=True)])
    ones = [torch.ones(len(row), dtype=torch.int64) for row in rows]
    return values, torch.stack([pad(row, one) for row, one in zip(ones, pads, strict=True)])


def as_trl(found: Experience) -> dict[str, Tensor]:
    """The same batch with prompts padded on the left and responses on the right."""
    sequences = found.sequences
    starts, stops = sequences.prompt_lengths.tolist(), sequences.lengths.tolist()
    rows = list(zip(sequences.tokens, starts, stops, strict=True))
    prompt_ids, prompt_mask = padded([row[:start] for row, start, _ in rows], left=True)
    ids, mask = padded([row[start:stop] for row, start, stop in rows], left=False)

    def responses(values: Tensor) -> Tensor:
        spans = zip(values, starts, stops, strict=True)
        return padded([row[start - 1 : stop - 1] for row, start, stop in spans], left=False)[0]

    assert found.advantages is not None
    assert found.old_log_probs is not None
    first = sequences.prompt_lengths - 1
    batch = {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": found.advantages[torch.arange(len(starts)), first],
        "old_per_token_logps": responses(found.old_log_probs),
        "old_logps": (responses(found.old_log_probs) * mask).sum(1),
        "num_items_in_batch": mask.sum(),
    }
    if found.reference_log_probs is not None:
        batch["ref_per_token_logps"] = responses(found.reference_log_probs)
    return batch


def rows_for_trl() -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"prompt": text} for text in PROMPTS])


# name: (our algorithm, TRL's settings)
GRPO = {
    "the mean over sequences": (
        {"name": "grpo", "aggregation": "sequence-mean"},
        {"loss_type": "grpo"},
    ),
    "the mean over tokens, with a higher upper clip": (
        {"name": "grpo", "clip_high": 0.28},
        {"loss_type": "dapo", "epsilon_high": 0.28},
    ),
    "dr. grpo's constant": ({"name": "drgrpo"}, {"loss_type": "dr_grpo"}),
    "kl in the loss": (
        {"name": "grpo", "aggregation": "sequence-mean", "kl": {"weight": 0.04}},
        # without TRL's own correction, which is of a later paper than GRPO
        {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": False},
    ),
    "gspo": (
        {"name": "gspo", "clip": 0.1, "clip_high": 0.2},
        {
            "loss_type": "grpo",
            "importance_sampling_level": "sequence",
            "epsilon": 0.1,
            "epsilon_high": 0.2,
        },
    ),
}


def same_as(
    trainer: Any, config: Any, algorithm: dict[str, Any], folder: Path, **more: Any
) -> None:
    """Our actor's loss is what one of TRL's online trainers computes of the same responses."""
    model, spec = network(folder), job(algorithm)
    found = experience(model, spec)
    theirs = trainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config(
            **settings(
                folder,
                per_device_train_batch_size=8,
                num_generations=4,
                max_completion_length=6,
                **more,
            )
        ),
        train_dataset=rows_for_trl(),
        processing_class=hf_tokenizer(),
    )
    theirs.current_gradient_accumulation_steps = 1
    loss, _ = ActorObjective(experience=found, job=spec)(Rows(0, 8), Rows(0, 8).indices)(
        log_probs(model, found.sequences), torch.arange(0, 8)
    )
    same(model, loss, theirs.compute_loss(model, as_trl(found)))


@pytest.mark.parametrize("case", GRPO)
def test_grpo_and_its_relatives_lose_what_trl_loses(case, tmp_path):
    from trl import GRPOConfig, GRPOTrainer

    algorithm, theirs = GRPO[case]
    more = {"beta": 0.0, "epsilon": 0.2, **theirs}
    same_as(GRPOTrainer, GRPOConfig, algorithm, tmp_path, **more)


def test_rloo_loses_what_trl_loses(tmp_path):
    from trl import RLOOConfig, RLOOTrainer

    same_as(RLOOTrainer, RLOOConfig, {"name": "rloo"}, tmp_path, beta=0.0)


def test_dpo_loses_what_trl_loses(tmp_path):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model, reference = network(tmp_path), network(tmp_path, seed=4)
    rows = [
        {"prompt": one.text, "chosen": one.answer, "rejected": one.rejected} for one in prompts()
    ]
    trainer = DPOTrainer(
        model=model,
        ref_model=reference,
        args=DPOConfig(**settings(tmp_path, per_device_train_batch_size=4, beta=0.3)),
        train_dataset=Dataset.from_list(rows),
        processing_class=hf_tokenizer(),
    )
    theirs = trainer.compute_loss(model, next(iter(trainer.get_train_dataloader())))
    algorithm = {"name": "dpo", "beta": 0.3}
    sequences = pair_sequences(prompts(), load_tokenizer(MODEL))
    with torch.no_grad():
        reference_log_probs = log_probs(reference, sequences)
    objective = PairObjective(
        mask=sequences.response_mask,
        reference_log_probs=reference_log_probs,
        job=job(algorithm, batch={"prompts": 4}),
    )
    loss, _ = objective(Rows(0, 8), Rows(0, 8).indices)(
        log_probs(model, sequences), torch.arange(0, 8)
    )
    same(model, loss, theirs)


def test_sft_loses_what_trl_loses(tmp_path):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model = network(tmp_path)
    rows = [{"prompt": one.text, "completion": one.answer} for one in prompts()]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**settings(tmp_path, per_device_train_batch_size=4)),
        train_dataset=Dataset.from_list(rows),
        processing_class=hf_tokenizer(),
    )
    theirs = trainer.compute_loss(model, next(iter(trainer.get_train_dataloader())))
    sequences = answer_sequences(prompts(), load_tokenizer(MODEL))
    loss, _ = AnswerObjective(sequences.response_mask)(Rows(0, 4), Rows(0, 4).indices)(
        log_probs(model, sequences), torch.arange(0, 4)
    )
    same(model, loss, theirs)
