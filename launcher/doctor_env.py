"""An existing script or environment read for its variables, and judged one by one."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from launcher.known_variables import ALLOCATORS, Known, is_secret, known
from launcher.platforms import PLATFORMS
from plans.fabrics import VARIABLES
from plans.platform import MASKS, Platform
from plans.source import read_text
from plans.values import frozen
from plans.variables import Variable
from rocm.platform import MI250X
from runtime.preflight import Finding, State

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
# A value in quotes, or up to the next space or end of a command.
VALUE = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^\s;&|'"]*)"""
PAIR = rf"(?P<name>{NAME})=(?P<value>{VALUE})"
PLACES = (
    re.compile(rf"^\s*(?:export\s+|declare\s+-x\s+|ENV\s+|env\s+)?{PAIR}"),
    re.compile(rf"(?<=\s){PAIR}"),
    re.compile(rf"(?:-e|--env)[= ]\s*{PAIR}"),
    re.compile(rf"^\s*ENV\s+(?P<name>{NAME})\s+(?P<value>{VALUE})\s*$"),
    re.compile(rf"environ\[[\"'](?P<name>{NAME})[\"']\]\s*=\s*(?P<value>{VALUE})"),
)
SRUN_EXPORT = re.compile(r"--export=(\S+)")
STATES: dict[str, State] = {
    "dead": "warning",
    "debug": "warning",
    "site": "warning",
    "harmful": "failure",
}
HABITS: tuple[tuple[re.Pattern[str], State, str], ...] = (
    (
        re.compile(r"\bdocker\s+(image|system|container)\s+prune|docker\s+rm\s+-f"),
        "failure",
        "removes containers or images of everybody on the node",
    ),
    (
        re.compile(r"^\s*(printenv|env)\s*($|\||>)"),
        "warning",
        "writes every variable into the log, secrets too",
    ),
    (re.compile(r"--privileged\b"), "warning", "gives the container the whole host"),
    (
        re.compile(r"\|\s*tee\b"),
        "warning",
        "hides the exit code of what comes before: set -o pipefail",
    ),
)


@frozen
class Setting:
    """A variable set in a text, with the line; the last one counts."""

    name: str
    value: str
    line: int
    in_argv: bool = False


def lint(path: Path) -> list[Finding]:
    """The findings about a script or the output of `env`; '-' is standard input."""
    text = sys.stdin.read() if str(path) == "-" else read_text(path)
    found = {setting.name: setting for setting in settings_of(text)}
    findings = [judge(setting) for setting in found.values()]
    unknown = sum(one.check == "unknown" for one in findings)
    told = [one for one in findings if one.check != "unknown"]
    if unknown:
        told.append(_finding("unknown", "ok", f"{unknown} others mean nothing to rlplan", ""))
    return [*told, *_together(found), *_habits(text)]


def settings_of(text: str) -> Iterator[Setting]:
    """Every variable that a text sets: shell, Dockerfile, docker options, Python, env output."""
    for number, line in enumerate(text.splitlines(), start=1):
        code = line.strip()
        if code.startswith("#") and not code.startswith("#SBATCH"):
            continue
        for listed in SRUN_EXPORT.findall(code):
            for pair in listed.split(","):
                name, equals, value = pair.partition("=")
                if equals and re.fullmatch(NAME, name):
                    yield Setting(name=name, value=value, line=number, in_argv=True)
        if code.startswith("#"):
            continue
        for place in PLACES:
            for match in place.finditer(line):
                value = match["value"].strip("\"'")
                yield Setting(name=match["name"], value=value, line=number)


def judge(setting: Setting) -> Finding:
    """What is known of one setting; a value that is a secret is never repeated."""
    name, value = setting.name, setting.value
    shown = f"line {setting.line}: {name}={value}"
    if is_secret(name) and value and not value.startswith("$"):
        where = "in a command line that every user of the node can read" if setting.in_argv else ""
        return _finding(
            "secret",
            "failure",
            f"line {setting.line}: {name} has its value in the text {where}".rstrip(),
            "keep secrets in a file of your own (chmod 600) and name the file",
        )
    if ours := _ours(name):
        return _of_ours(shown, value, ours)
    if fact := known(name, value):
        return _of_known(shown, fact)
    return _finding("unknown", "ok", f"line {setting.line}: {name} is not known", "")


def _of_ours(shown: str, value: str, ours: Variable) -> Finding:
    fact = known(ours.name, value)
    if fact and fact.verdict in ("debug", "harmful"):
        return _of_known(shown, fact)
    if ours.scope == "debug":
        return _finding("debug", "warning", f"{shown}: for debugging", ours.reason)
    if value == ours.value:
        return _finding("ours", "ok", f"{shown}: rlplan sets the same", "")
    if ours.scope == "must":
        text = f"{shown}: rlplan sets {ours.value} whatever you say"
        return _finding("overruled", "warning", text, ours.reason)
    text = f"{shown}: rlplan would set {ours.value}, yours stays"
    return _finding("tuned", "ok", text, ours.reason)


def _of_known(shown: str, fact: Known) -> Finding:
    state = STATES.get(fact.verdict, "ok")
    source = f" ({fact.source})" if fact.source else ""
    label = {"debug": "debug only", "site": "of one site"}.get(fact.verdict, fact.verdict)
    return _finding(fact.verdict, state, f"{shown}: {label}", f"{fact.reason}{source}")


def _together(found: dict[str, Setting]) -> Iterator[Finding]:
    """What is wrong with several variables at once."""
    masks = sorted(name for name in found if name in MASKS and found[name].value)
    if len(masks) > 1:
        yield _finding(
            "conflict",
            "failure",
            f"{' and '.join(masks)} are set together",
            "on AMD the second counts among the devices the first leaves, and vLLM refuses "
            "two that differ; set none, the ranks set one",
        )
    allocators = [name for name in ALLOCATORS if name in found]
    if len(allocators) > 1:
        text = f"{' and '.join(allocators)} are set together"
        yield _finding("conflict", "failure", text, "torch reads one of them; set that one")


def _habits(text: str) -> Iterator[Finding]:
    """What scripts do beside setting variables and should not."""
    safe = bool(re.search(r"^\s*set\s+-\w*o\s+pipefail", text, re.MULTILINE))
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, state, reason in HABITS:
            match = pattern.search(line)
            if not match or line.lstrip().startswith("#") or ("tee" in pattern.pattern and safe):
                continue
            yield _finding("script", state, f"line {number}: {match[0].strip()}", reason)


def _ours(name: str) -> Variable | None:
    """rlplan's own setting of a variable, on whatever platform or network has it."""
    platforms: tuple[Platform, ...] = (*PLATFORMS.values(), MI250X)
    listed = [one for platform in platforms for one in platform.variables]
    fabrics = [one for variables in VARIABLES.values() for one in variables]
    general = known(name, "")
    if general and general.verdict == "site" and all(one.name != name for one in listed):
        return None
    return next((one for one in (*listed, *fabrics) if one.name == name), None)


def _finding(check: str, state: State, text: str, remedy: str) -> Finding:
    return Finding(check=check, state=state, text=text, remedy=remedy)
