"""Recipes of containers read and judged: Dockerfiles, Apptainer definitions, compose files.

What a recipe says can be judged without building it; whether its image works cannot, and the
findings say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from launcher.doctor_env import judge, settings_of
from launcher.known_variables import is_secret
from plans.software import Software, read_software
from plans.source import UserError, read_text, read_yaml
from plans.units import GIB, MIB, bytes_text
from plans.values import frozen
from runtime.needs import GPU_SHARED_MEMORY_BYTES
from runtime.preflight import Finding, State

UNITS = {"": 1, "b": 1, "k": 2**10, "kb": 2**10, "m": MIB, "mb": MIB, "g": GIB, "gb": GIB}
PINNED = re.compile(r"@sha256:[0-9a-f]{64}$|:(?!latest$)[\w][\w.-]*$")
PIP = re.compile(r"pip3?\s+install\b([^&|;]*)")
# Options of pip that take the next word.
WITH_VALUE = {"-r", "-c", "-e", "--index-url", "--extra-index-url", "--find-links", "-f"}


@frozen
class Recipe:
    """A Dockerfile or a definition: the image it starts from, and its lines with continuations."""

    kind: str
    base: str
    label: str
    lines: tuple[tuple[int, str], ...]


def lint(path: Path) -> list[Finding]:
    """The findings about a recipe; UserError when the file is none."""
    text = read_text(path)
    if re.search(r"^services:", text, re.MULTILINE):
        findings = list(_compose(read_yaml(path).data))
    else:
        findings = list(_recipe(read_recipe(path, text)))
    note = "read, not built: whether the engines run in the image is for `rlplan doctor` inside it"
    if any(one.state == "failure" for one in findings):
        return findings
    return [*findings, Finding(check="scope", state="ok", text=note)]


def read_recipe(path: Path, text: str) -> Recipe:
    """A recipe by its first words."""
    lines = tuple(_joined(text))
    arguments = dict(re.findall(r"^(?:ARG\s+|\s+)([A-Z]+)=(\S+)$", text, re.MULTILINE))

    def filled(word: str) -> str:
        found = r"\$\{?(\w+)\}?|\{\{ ?(\w+) ?\}\}"
        return re.sub(found, lambda name: arguments.get(name[1] or name[2], name[0]), word)

    label = re.search(r"rlplan\.software[=\s]+\"?([^\n\"]+)", text)
    if re.search(r"^Bootstrap:", text, re.MULTILINE):
        kind, base = "apptainer", re.search(r"^From:\s*(.+?)\s*$", text, re.MULTILINE)
    else:
        kind, base = "docker", re.search(r"^FROM\s+(?:--\S+\s+)?(\S+)", text, re.MULTILINE)
    if not base:
        raise UserError(f"{path}: neither a Dockerfile, an Apptainer definition nor a compose file")
    row = filled(label[1]) if label else ""
    return Recipe(kind=kind, base=filled(base[1]), label=row, lines=lines)


def _recipe(recipe: Recipe) -> Iterator[Finding]:
    rows = {row.name: row for row in read_software()}
    yield _base(recipe)
    yield _row(recipe, rows)
    for check in (_packages, _habits, _variables):
        yield from check(recipe, rows.get(recipe.label))


def _base(recipe: Recipe) -> Finding:
    if PINNED.search(recipe.base):
        return _finding("base", "ok", f"starts from {recipe.base}")
    remedy = "name a version or a digest; the image is else another one next week"
    return _finding(
        "base", "failure", f"starts from {recipe.base}, which is no fixed image", remedy
    )


def _row(recipe: Recipe, rows: dict[str, Software]) -> Finding:
    row = rows.get(recipe.label)
    if row is None:
        remedy = f'LABEL rlplan.software="…", one of {", ".join(rows)}'
        return _finding("row", "warning", "names no row of plans/software.yaml", remedy)
    if row.base != recipe.base:
        text = f"row {row.name} starts from {row.base}"
        return _finding("row", "failure", text, "use that base, or give the file its own row")
    return _finding("row", "ok", f"row {row.name}, verified: {row.verified}")


def _packages(recipe: Recipe, row: Software | None) -> Iterator[Finding]:
    """Versions are pinned, are those of the row, and pip leaves the base's torch alone."""
    for number, line in recipe.lines:
        for match in PIP.finditer(line):
            words = _arguments(match[1])
            constrained = bool(re.search(r"(^|\s)(-c|-r|--constraint|--requirement)\s", match[1]))
            for word in words:
                name, _, version = re.sub(r"\[.*?\]", "", word).partition("==")
                yield from _package(number, name, version, constrained, row)


def _package(
    number: int, name: str, version: str, constrained: bool, row: Software | None
) -> Iterator[Finding]:
    wanted = (row.packages if row else {}).get(name)
    if name in ("torch", "vllm") and row and row.platform == "rocm":
        text = f"line {number}: pip installs {name} into an image of ROCm"
        remedy = "the index has the build for CUDA; keep that of the base image"
        yield _finding("packages", "failure", text, remedy)
    elif name == "apex":
        text = f"line {number}: apex on PyPI is an unrelated package"
        yield _finding("packages", "failure", text, "leave it out; NVIDIA Apex is optional")
    elif wanted and version and version != wanted:
        text = f"line {number}: {name} {version}, row {row.name if row else ''} has {wanted}"
        yield _finding("packages", "failure", text, "install the row's version")
    elif not version and not constrained and not name.startswith(("/", ".", "$")):
        text = f"line {number}: {name} has no version"
        yield _finding("packages", "warning", text, "pin it (==), or use a constraints file")


def _habits(recipe: Recipe, _row: Software | None) -> Iterator[Finding]:
    for number, line in recipe.lines:
        for pattern, state, text, remedy in HABITS:
            if re.search(pattern, line):
                yield _finding("recipe", state, f"line {number}: {text}", remedy)
    everything = "\n".join(line for _, line in recipe.lines)
    if "apt-get install" in everything and "/var/lib/apt/lists" not in everything:
        remedy = "rm -rf /var/lib/apt/lists/*"
        yield _finding("recipe", "warning", "package lists stay in the image", remedy)
    last = re.findall(r"^USER\s+(\S+)", everything, re.MULTILINE)
    if recipe.kind == "docker" and (not last or last[-1] in ("root", "0")):
        yield _finding("recipe", "warning", "runs as root under docker", "end with USER name")


def _variables(recipe: Recipe, _row: Software | None) -> Iterator[Finding]:
    """Variables built into an image win over the host's under pyxis: only harmless ones belong."""
    lines = [
        re.sub(r"^(ENV|ARG)\s+", "export ", line)
        for _, line in recipe.lines
        if re.match(r"\s*(ENV|ARG|export)\s", line)
    ]
    for setting in settings_of("\n".join(lines)):
        found = judge(setting)
        text = found.text.partition(": ")[2]
        if is_secret(setting.name):
            text = f"{setting.name} is baked into the image"
            yield _finding("secret", "failure", text, "every holder of the image can read it")
        elif found.state != "ok":
            yield _finding("variables", "failure", f"in the image: {text}", found.remedy)


def _compose(data: dict[str, Any]) -> Iterator[Finding]:
    services = data.get("services")
    if not isinstance(services, dict) or not services:
        raise UserError("the compose file has no services")
    for name, service in services.items():
        if not isinstance(service, dict):
            raise UserError(f"services.{name}: expected a mapping")
        for check in COMPOSE_CHECKS:
            yield from check(str(name), service)


def _shared_memory(name: str, service: dict[str, Any]) -> Iterator[Finding]:
    gpu = bool(service.get("devices")) or "deploy" in service or "gpus" in service
    if service.get("ipc") == "host" or not gpu:
        return
    size = _bytes(str(service.get("shm_size", "64m")))
    wanted = GPU_SHARED_MEMORY_BYTES
    if size < wanted:
        text = f"{name}: /dev/shm is {bytes_text(size)}, ranks on GPUs need {bytes_text(wanted)}"
        yield _finding("shared_memory", "failure", text, "shm_size: 16gb")


def _limits(name: str, service: dict[str, Any]) -> Iterator[Finding]:
    limits = service.get("ulimits") or {}
    gpu = bool(service.get("devices")) or "deploy" in service or "gpus" in service
    if gpu and limits.get("memlock") != -1:
        text = f"{name}: locked memory is limited"
        yield _finding("locked_memory", "warning", text, "ulimits: {memlock: -1}")


def _powers(name: str, service: dict[str, Any]) -> Iterator[Finding]:
    if service.get("privileged"):
        text = f"{name}: privileged gives the container the whole host"
        yield _finding("powers", "failure", text, "name its devices instead")
    if any("docker.sock" in str(one) for one in service.get("volumes") or ()):
        text = f"{name}: docker.sock makes the container root of the host"
        yield _finding("powers", "failure", text, "leave it out")
    for port in service.get("ports") or ():
        if not str(port).startswith(("127.0.0.1:", "[::1]:")):
            text = f"{name}: port {port} is open to everybody"
            yield _finding("ports", "failure", text, "rlplan serves nothing; leave it out")


def _image(name: str, service: dict[str, Any]) -> Iterator[Finding]:
    image = str(service.get("image", ""))
    if image and not PINNED.search(image):
        text = f"{name}: {image} is no fixed image"
        yield _finding("base", "failure", text, "name a version or a digest")
    elif image:
        yield _finding("base", "ok", f"{name}: {image}")


def _environment(name: str, service: dict[str, Any]) -> Iterator[Finding]:
    given = service.get("environment") or {}
    pairs = given.items() if isinstance(given, dict) else [str(one).split("=", 1) for one in given]
    for key, *value in pairs:
        if is_secret(str(key)) and value and not str(value[0]).startswith("$"):
            text = f"{name}: {key} has its value in the file"
            yield _finding("secret", "failure", text, "mount a file, and name it")


def _finding(check: str, state: State, text: str, remedy: str = "") -> Finding:
    return Finding(check=check, state=state, text=text, remedy=remedy)


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)\s*([a-z]*)", text.strip().lower())
    if not found or found[2] not in UNITS:
        raise UserError(f"shm_size: {text!r} is not a size such as 16gb")
    return int(found[1]) * UNITS[found[2]]


def _arguments(text: str) -> list[str]:
    """The packages among the words behind `pip install`."""
    words, skip = [], False
    for word in text.replace('"', " ").replace("'", " ").split():
        if skip or word.startswith("-"):
            skip = word in WITH_VALUE or word in ("--constraint", "--requirement")
        else:
            words.append(word)
    return words


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their continuations, each with the number of its first; comments left out."""
    start, held = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#"):
            continue
        start = start if held else number
        held += line.removesuffix("\\")
        if not line.endswith("\\"):
            if held.strip():
                yield start, held
            held = ""


HABITS: tuple[tuple[str, State, str, str], ...] = (
    (
        r"(curl|wget)[^|&;]*\|\s*(sudo\s+)?(ba)?sh",
        "failure",
        "runs a script from the network unread",
        "download it, check its hash, then run it",
    ),
    (r"^ADD\s+https?://", "warning", "ADD of an address", "COPY a file whose hash was checked"),
    (r"^EXPOSE\b", "warning", "EXPOSE: rlplan listens on no port", "leave it out"),
    (
        r"(ENV|export)\s+LD_LIBRARY_PATH",
        "warning",
        "LD_LIBRARY_PATH hides the libraries that torch brings",
        "leave it out",
    ),
    (r"chmod\s+(-R\s+)?0?777", "failure", "chmod 777", "give the one user what he needs"),
    (r"trust_remote_code", "failure", "trust_remote_code", "rlplan runs no code of a model"),
)
COMPOSE_CHECKS: tuple[Callable[[str, dict[str, Any]], Iterator[Finding]], ...] = (
    _image,
    _shared_memory,
    _limits,
    _powers,
    _environment,
)
