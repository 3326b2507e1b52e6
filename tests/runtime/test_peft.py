"""PEFT's folders, read and written: what PEFT makes of ours, and we of its."""

import json
from pathlib import Path

import pytest
import torch

from plans.adapters import adapter_tensors
from plans.lora import LoraSpec
from plans.model import read_model
from plans.source import UserError
from runtime.engines.hf import random_weights
from runtime.engines.peft import DrawnAdapter, MergedWeights, read_adapter, write_adapter

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "tiny-qwen2"
MODEL = read_model(FOLDER)
LORA = LoraSpec.model_validate({"rank": 4, "alpha": 6})


def filled(seed=1):
    """Adapters of which neither matrix is zero."""
    generator = torch.Generator().manual_seed(seed)
    return {
        one.name: torch.randn(one.shape, generator=generator) * 0.05
        for one in adapter_tensors(MODEL, LORA)
    }


def test_what_is_written_is_read_back_bit_for_bit(tmp_path):
    tensors = filled()
    write_adapter(tmp_path / "adapter", "base", LORA, tensors.items())
    again = read_adapter(tmp_path / "adapter", MODEL, LORA)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_the_first_adapters_are_those_of_their_seed_and_change_nothing():
    one, other = (DrawnAdapter(MODEL, LORA, seed) for seed in (1, 2))
    name = next(name for name in one if "lora_A" in name)
    assert torch.equal(one[name], DrawnAdapter(MODEL, LORA, 1)[name])
    assert not torch.equal(one[name], other[name])
    assert one[name].abs().max() <= MODEL.hidden_size**-0.5
    weights = random_weights(MODEL, 0)
    merged = MergedWeights(weights, one, LORA.scale)
    assert all(torch.equal(merged[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"r": 8}, "r 8, but lora.rank of the job is 4"),
        ({"lora_alpha": 16}, "lora_alpha 16, but lora.alpha of the job is 6"),
        ({"use_dora": True}, "use_dora True is not plain LoRA"),
        ({"peft_type": "IA3"}, "peft_type IA3"),
        ({"target_modules": ["q_proj"]}, "target_modules q_proj, but those of the job are"),
    ],
)
def test_an_adapter_of_another_kind_is_refused_by_name(tmp_path, changes, told):
    write_adapter(tmp_path / "adapter", "base", LORA, filled().items())
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=r"adapter_config\.json") as error:
        read_adapter(tmp_path / "adapter", MODEL, LORA)
    assert told in str(error.value)


def test_a_tensor_too_many_or_too_few_is_refused_by_name(tmp_path):
    tensors = filled()
    name, _ = tensors.popitem()
    write_adapter(tmp_path / "adapter", "base", LORA, tensors.items())
    with pytest.raises(UserError, match="missing") as error:
        read_adapter(tmp_path / "adapter", MODEL, LORA)
    assert name in str(error.value)


@pytest.mark.slow
def test_peft_loads_ours_computes_the_same_and_merges_to_the_same(tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoConfig, AutoModelForCausalLM

    weights, tensors = random_weights(MODEL, 0), filled()
    base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(FOLDER)).float().eval()
    base.load_state_dict(dict(weights.items()), strict=False)
    write_adapter(tmp_path / "adapter", str(FOLDER), LORA, tensors.items())
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    tokens = torch.arange(24).reshape(2, 12) % MODEL.vocab_size
    with torch.no_grad():
        logits = theirs(tokens).logits
        whole = theirs.merge_and_unload()
        merged = MergedWeights(weights, tensors, LORA.scale)
        for name, tensor in whole.state_dict().items():
            if name in weights:
                assert (merged[name] - tensor).abs().max() < 1e-6
        assert (whole(tokens).logits - logits).abs().max() < 1e-4


@pytest.mark.slow
def test_we_read_what_peft_saves(tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoConfig, AutoModelForCausalLM

    base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(FOLDER)).float()
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(base, config)
    theirs.save_pretrained(tmp_path / "saved")
    ours = read_adapter(tmp_path / "saved", MODEL, LORA)
    for name, tensor in theirs.named_parameters():
        if "lora_" in name:
            own = name.removeprefix("base_model.model.").replace(".default", "")
            assert torch.equal(ours[own], tensor)
