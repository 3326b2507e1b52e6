"""Strings that break out of careless shell text: always the same ones, from a seed."""

from __future__ import annotations

import random

SEED = 20261121
# What a shell, sbatch or a terminal gives a meaning; CANARY is a file that must never appear.
PIECES = (
    "$(touch CANARY)",
    "`touch CANARY`",
    "; touch CANARY;",
    "&& touch CANARY",
    "| touch CANARY",
    "> CANARY",
    "'; touch CANARY; '",
    '"; touch CANARY; "',
    "'\"'\"'",
    "'",
    '"',
    "\\",
    "\\'",
    "${IFS}",
    "$HOME",
    "~",
    "*",
    "?",
    "[a-z]",
    "{1..9}",
    "!!",
    "#",
    "#SBATCH --uid=0",
    "%j",
    "%",
    "=",
    ",",
    "--wrap=id",
    "-n",
    "{{ 7*7 }}",
    "{% raw %}",
    "a b",
    "  ",
    "é",
    "漢字",
    "🦀",
    "\u202e",
    "\u2028",
    "\u0085",
    "\ufeff",
    "e\u0301",
    "x" * 40,
)
CONTROLS = ("\n", "\r", "\t", "\0", "\x1b[2J", "\x7f", "\x07", "\r\ntouch CANARY\n")


def strings(count: int, canary: str, *, controls: bool = False) -> list[str]:
    """So many strings of one to six pieces, with a control character in each if asked for."""
    chance = random.Random(SEED)
    found = []
    for _ in range(count):
        pieces = chance.choices(PIECES, k=chance.randint(1, 6))
        if controls:
            pieces.insert(chance.randint(0, len(pieces)), chance.choice(CONTROLS))
        found.append("".join(pieces).replace("CANARY", canary))
    return found
