"""Rows of a data file: JSON lines, Parquet, or a folder as Hugging Face datasets saves it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.mistakes import DataMistake, MissingInput

# A row with its place in the file; of a JSON-lines file the text of its line, not yet parsed.
Row = tuple[str, str | dict[str, Any]]
ROWS_AT_ONCE = 1024


def read_rows(path: Path) -> Iterator[Row]:
    """Every row under `path` in file order, with 'file:line' or 'file: row n' (from 1).

    A folder is one split saved by `datasets` (state.json beside Arrow files), or holds Parquet
    or JSON-lines files, read in order of their names. Raises MissingInput, or DataMistake for
    a file that is none of these.
    """
    for file in _files(path):
        if file.suffix == ".parquet":
            yield from _parquet(file)
        elif file.suffix == ".arrow":
            yield from _arrow(file)
        else:
            yield from _lines(file)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text("utf-8")).get("splits", [])
        raise DataMistake(f"{path}: holds the splits {', '.join(splits)}; name one: {path}/SPLIT")
    if (path / "state.json").is_file():
        state = json.loads((path / "state.json").read_text("utf-8"))
        return [path / Path(file["filename"]).name for file in state["_data_files"]]
    for pattern in ("*.parquet", "*.jsonl"):
        if found := sorted(path.glob(pattern)):
            return found
    raise MissingInput(f"{path}: a folder without .parquet, .jsonl or saved datasets files")


def _lines(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, start=1):
                if text.strip():
                    yield f"{path}:{number}", text
    except UnicodeDecodeError as error:
        hint = "; Parquet files end in .parquet" if b"PAR1" in path.open("rb").read(4) else ""
        raise DataMistake(f"{path}: not UTF-8: {error.reason}{hint}") from None
    except OSError as error:
        raise _missing(path, error) from None


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        for batch in ParquetFile(path).iter_batches(ROWS_AT_ONCE):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", row
    except ArrowException as error:
        raise DataMistake(f"{path}: not a Parquet file: {_first_line(error)}") from None
    except OSError as error:
        raise _missing(path, error) from None


def _arrow(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException, ipc, memory_map

    number = 0
    try:
        with memory_map(str(path)) as source:
            for batch in ipc.open_stream(source):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except ArrowException as error:
        raise DataMistake(f"{path}: not an Arrow stream: {_first_line(error)}") from None
    except OSError as error:
        raise _missing(path, error) from None


def _missing(path: Path, error: OSError) -> MissingInput:
    return MissingInput(f"{path}: {(error.strerror or 'cannot be read').lower()}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
