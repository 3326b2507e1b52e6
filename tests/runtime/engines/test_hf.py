"""Hugging Face folders: what is read, drawn and exported, and what is said when a file is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from plans.model import ModelSpec, from_config
from plans.source import UserError
from runtime.engines import hf

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}


def model() -> ModelSpec:
    return from_config(CONFIG, "config.json")


def model_folder(path: Path) -> Path:
    """A folder with config, a tokenizer file and single-file weights."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "tokenizer.json").write_text("{}")
    save_file(dict(hf.random_weights(model(), 1).items()), path / hf.SINGLE)
    return path


def test_random_weights_depend_on_seed_and_name_alone():
    first, again, other = (hf.random_weights(model(), seed) for seed in (3, 3, 4))
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], first["model.layers.0.mlp.up_proj.weight"])


def test_random_weights_are_the_initialisation_of_hugging_face():
    weights = hf.random_weights(model(), 0)
    assert weights["model.embed_tokens.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(weights["model.norm.weight"], torch.ones(64))
    assert torch.equal(weights["model.layers.0.post_attention_layernorm.weight"], torch.ones(64))
    assert torch.equal(weights["model.layers.0.self_attn.q_proj.bias"], torch.zeros(64))


def test_random_weights_have_every_tensor_of_the_model():
    weights = hf.random_weights(model(), 0)
    assert {name: tuple(one.shape) for name, one in weights.items()} == {
        tensor.name: tensor.shape for tensor in model().tensors
    }


def test_a_folder_gives_back_what_was_written(tmp_path: Path):
    weights = hf.read_weights(model_folder(tmp_path / "model"), model())
    expected = hf.random_weights(model(), 1)
    assert set(weights) == set(expected)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_an_export_is_cut_into_files_with_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hf, "SHARD_BYTES", 40_000)
    source = model_folder(tmp_path / "model")
    expected = hf.random_weights(model(), 7)
    hf.export(tmp_path / "export", source, expected.items())
    weights = hf.read_weights(tmp_path / "export", model())
    assert len(set(weights.files.values())) > 2
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_an_export_replaces_the_one_before_and_leaves_nothing_behind(tmp_path: Path):
    source = model_folder(tmp_path / "model")
    for seed in (1, 2):
        hf.export(tmp_path / "export", source, hf.random_weights(model(), seed).items())
    weights = hf.read_weights(tmp_path / "export", model())
    name = "lm_head.weight"
    assert torch.equal(weights[name], hf.random_weights(model(), 2)[name])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "model"]
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_an_export_that_fails_leaves_the_one_before(tmp_path: Path):
    source = model_folder(tmp_path / "model")
    hf.export(tmp_path / "export", source, hf.random_weights(model(), 1).items())

    def broken():
        yield "lm_head.weight", torch.ones(2)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        hf.export(tmp_path / "export", source, broken())
    assert len(hf.read_weights(tmp_path / "export", model())) == len(model().tensors)


@pytest.mark.engines
def test_transformers_loads_an_export(tmp_path: Path):
    from transformers import AutoModelForCausalLM

    source = model_folder(tmp_path / "model")
    expected = hf.random_weights(model(), 5)
    tensors = ((name, tensor.bfloat16()) for name, tensor in expected.items())
    hf.export(tmp_path / "export", source, tensors)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype="auto")
    assert loaded.dtype == torch.bfloat16
    assert all(
        torch.equal(tensor, expected[name].bfloat16())
        for name, tensor in loaded.state_dict().items()
    )


def test_a_folder_without_weights_is_refused_with_the_remedy(tmp_path: Path):
    with pytest.raises(UserError, match=r"neither model\.safetensors\.index\.json nor .*random"):
        hf.read_weights(tmp_path, model())


def test_a_corrupt_file_is_named(tmp_path: Path):
    (tmp_path / hf.SINGLE).write_bytes(b"not safetensors at all")
    with pytest.raises(UserError, match=r"model\.safetensors: not readable as safetensors"):
        hf.read_weights(tmp_path, model())


def test_a_truncated_file_is_named(tmp_path: Path):
    folder = model_folder(tmp_path / "model")
    data = (folder / hf.SINGLE).read_bytes()
    (folder / hf.SINGLE).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"model\.safetensors: not readable"):
        hf.read_weights(folder, model())


def test_files_that_the_index_names_must_exist(tmp_path: Path):
    table = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / hf.INDEX).write_text(json.dumps(table))
    with pytest.raises(UserError, match=r"model-00001-of-00002\.safetensors missing"):
        hf.read_weights(tmp_path, model())


def test_an_index_without_a_table_is_refused(tmp_path: Path):
    (tmp_path / hf.INDEX).write_text("{}")
    with pytest.raises(UserError, match="no 'weight_map'"):
        hf.read_weights(tmp_path, model())


def test_missing_tensors_are_counted_and_named(tmp_path: Path):
    weights = dict(hf.random_weights(model(), 1).items())
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / hf.SINGLE)
    with pytest.raises(UserError, match=r"1 tensors of Qwen2ForCausalLM are missing.*model\.norm"):
        hf.read_weights(tmp_path, model())


def test_a_shape_that_config_json_denies_is_shown(tmp_path: Path):
    weights = dict(hf.random_weights(model(), 1).items())
    weights["model.norm.weight"] = torch.ones(32)
    save_file(weights, tmp_path / hf.SINGLE)
    with pytest.raises(UserError, match=r"model\.norm\.weight has shape \[32\].*says \[64\]"):
        hf.read_weights(tmp_path, model())
