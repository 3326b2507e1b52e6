"""Hugging Face model folders: weights read lazily, weights drawn from a seed, export."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from plans.model import ModelSpec
from plans.source import UserError, read_json
from runtime.engines import VALUE_HEAD
from runtime.files import discard_folder, make_folder, move_folder, sync, temporary_of, write_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHARD_BYTES = 4 * 2**30
INITIAL_DEVIATION = 0.02
# The head of Hugging Face's models for sequence classification.
SCORE_HEAD = "score.weight"

# what a model folder may hold besides config.json and weights; copied into an export
COMPANIONS = (
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


class FolderWeights(Mapping[str, Tensor]):
    """The tensors of a model folder by name, read from disk when asked for.

    A tensor is mapped, not copied: only the pages that are used are read.
    """

    def __init__(self, folder: Path, files: Mapping[str, Path]) -> None:
        self.folder = folder
        self.files = files

    def __getitem__(self, name: str) -> Tensor:
        path = self.files.get(name)
        if path is None:
            raise KeyError(name)
        try:
            with safe_open(path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: {name}: {error}; download the file again") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


class RandomWeights(Mapping[str, Tensor]):
    """Freshly initialised weights by name: normal(0, 0.02), norms one, biases zero.

    The initialisation of Hugging Face's Llama family. A tensor depends on the seed, its name
    and the kind of device alone, so every rank of every layout draws the same model. A GPU
    draws 7 billion in less than a second, a core of a CPU in a minute.
    """

    def __init__(self, model: ModelSpec, seed: int, device: str = "cpu") -> None:
        self.shapes = {tensor.name: tensor.shape for tensor in model.tensors}
        self.seed = seed
        self.device = device

    def __getitem__(self, name: str) -> Tensor:
        shape = self.shapes[name]
        if name.endswith("norm.weight"):
            return torch.ones(shape, device=self.device)
        if name.endswith(".bias"):
            return torch.zeros(shape, device=self.device)
        digest = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        generator = torch.Generator(self.device)
        generator.manual_seed(int.from_bytes(digest[:8], "big", signed=True))
        drawn = torch.empty(shape, device=self.device)
        return drawn.normal_(0.0, INITIAL_DEVIATION, generator=generator)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class RewardWeights(Mapping[str, Tensor]):
    """The weights of a reward model; its head goes by the name of a value head."""

    def __init__(self, weights: FolderWeights) -> None:
        self.weights = weights

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[SCORE_HEAD if name == VALUE_HEAD else name]

    def __iter__(self) -> Iterator[str]:
        return (VALUE_HEAD if name == SCORE_HEAD else name for name in self.weights)

    def __len__(self) -> int:
        return len(self.weights)


def read_weights(folder: Path, model: ModelSpec) -> FolderWeights:
    """The weights in a model folder, checked against the model: every name, and every shape.

    Raises UserError naming the folder or file, what is wrong, and the remedy.
    """
    return _checked(folder, model, {tensor.name: tensor.shape for tensor in model.tensors})


def read_reward_weights(folder: Path, model: ModelSpec) -> RewardWeights:
    """The weights of a `...ForSequenceClassification` with one score; UserError as above."""
    expected = {tensor.name: tensor.shape for tensor in model.tensors}
    expected.pop("lm_head.weight", None)
    expected[SCORE_HEAD] = (1, model.hidden_size)
    return RewardWeights(_checked(folder, model, expected))


def _checked(
    folder: Path, model: ModelSpec, expected: Mapping[str, tuple[int, ...]]
) -> FolderWeights:
    weights = FolderWeights(folder, _files(folder))
    shapes = tensor_shapes(weights.files)
    missing = sorted(expected.keys() - shapes.keys())
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} tensors of {model.architecture} are missing, "
            f"the first is {missing[0]}; is config.json the one of these weights?"
        )
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise UserError(
                f"{weights.files[name]}: {name} has shape {list(shapes[name])}, config.json of "
                f"{folder} says {list(shape)}"
            )
    return weights


def random_weights(model: ModelSpec, seed: int) -> RandomWeights:
    """The weights of an untrained model; `.items()` gives (name, tensor), drawn one at a time."""
    return RandomWeights(model, seed, "cuda" if torch.cuda.is_available() else "cpu")


def export(folder: Path, model_folder: Path, tensors: Iterable[tuple[str, Tensor | None]]) -> None:
    """Write a folder that `transformers` loads: weights, config.json and tokenizer files.

    Written to `<folder>.tmp` and renamed, so a folder of that name is always complete; one
    that is already there is replaced. `tensors` may be what `TrainEngine.full_tensors` gives
    on rank 0. Raises OSError when the disk is full or the place cannot be written.
    """
    draft = temporary_of(folder)
    discard_folder(draft)
    make_folder(draft)
    dtype = _write_weights(draft, tensors)
    config = read_json(model_folder / "config.json")
    write_json(draft / "config.json", {**config, "dtype": dtype, "torch_dtype": dtype})
    for name in COMPANIONS:
        if (model_folder / name).exists():
            shutil.copyfile(model_folder / name, draft / name)
    for path in (*draft.iterdir(), draft):
        sync(path)
    move_folder(draft, folder)


def _files(folder: Path) -> dict[str, Path]:
    """The file of each tensor, from the index or the single file."""
    if (folder / INDEX).exists():
        table = read_json(folder / INDEX).get("weight_map")
        if not isinstance(table, dict):
            raise UserError(f"{folder / INDEX}: no 'weight_map'; download the file again")
        absent = sorted({name for name in table.values() if not (folder / name).exists()})
        if absent:
            raise UserError(f"{folder}: {', '.join(absent)} missing; finish the download")
        return {str(tensor): folder / name for tensor, name in table.items()}
    path = folder / SINGLE
    if not path.exists():
        raise UserError(
            f"{folder}: neither {INDEX} nor {SINGLE}; give a folder with safetensors weights, "
            "or set model.weights to 'random'"
        )
    return tensor_files(path)


def tensor_files(path: Path) -> dict[str, Path]:
    """The tensors of one safetensors file, each with that file."""
    return dict.fromkeys(_header(path), path)


def tensor_shapes(files: Mapping[str, Path]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of some safetensors files, without reading them."""
    return {
        name: shape for path in sorted(set(files.values())) for name, shape in _header(path).items()
    }


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file, without its tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not readable as safetensors: {error}") from None


def _write_weights(folder: Path, tensors: Iterable[tuple[str, Tensor | None]]) -> str:
    """Write files of at most SHARD_BYTES (a larger tensor alone) and an index; gives the dtype."""
    batches: list[list[str]] = []
    batch: dict[str, Tensor] = {}
    size = total = 0
    dtype = "float32"
    for name, tensor in tensors:
        assert tensor is not None, "only rank 0 has the tensors to export"
        if batch and size + tensor.nbytes > SHARD_BYTES:
            batches.append(_write_batch(folder, len(batches), batch))
            batch, size = {}, 0
        batch[name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
        total += tensor.nbytes
        dtype = str(tensor.dtype).removeprefix("torch.")
    batches.append(_write_batch(folder, len(batches), batch))
    _name_files(folder, batches, total)
    return dtype


def _write_batch(folder: Path, index: int, batch: dict[str, Tensor]) -> list[str]:
    save_file(batch, folder / f"part-{index}", metadata={"format": "pt"})
    return list(batch)


def _name_files(folder: Path, batches: list[list[str]], total_bytes: int) -> None:
    if len(batches) == 1:
        (folder / "part-0").rename(folder / SINGLE)
        return
    table: dict[str, str] = {}
    for index, names in enumerate(batches):
        file = f"model-{index + 1:05d}-of-{len(batches):05d}.safetensors"
        (folder / f"part-{index}").rename(folder / file)
        table |= dict.fromkeys(names, file)
    write_json(folder / INDEX, {"metadata": {"total_size": total_bytes}, "weight_map": table})
