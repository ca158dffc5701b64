"""Records tests/cases/<failure mode>.json from the lab, so that a case is what a kernel showed and not what we think.

usage: python -m tests.record [FAILURE_MODE ...]      all of them without a name; "healthy" is the lab without a wound
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from facts import DERIVED
from lab.client import Lab
from lab.faults import families, load, names, needs, variant
from tests.asking import ask, told, words_for

CASES = Path(__file__).parent / "cases"
HEALTHY = Path(__file__).parent / "healthy.json"


def record(lab: Lab, mode: str) -> dict[str, Any]:
    """One recording for each place the wound can be at."""
    recordings = []
    for where in load(mode).WHERE:
        lab.heal()
        words = words_for(lab.inflict(mode, where=where, family=families(mode)[0]))
        recordings.append({"where": where, **_answer(lab, words, mode)})
    return {"mode": mode, "recordings": recordings}


def healthy(lab: Lab) -> dict[str, Any]:
    """The same pair in the lab as it came up."""
    lab.heal()
    return {"mode": "", "recordings": [_answer(lab, words_for({"source": "shop/cart", "target": "shop/db"}))]}


def _answer(lab: Lab, words: str, mode: str = "") -> dict[str, Any]:
    diagnosis = asyncio.run(ask(lab.environment(), words)).diagnosis
    observed = [fact for fact in diagnosis.facts if not isinstance(fact, DERIVED)]
    return {
        "asked": words,
        "verdict": diagnosis.verdict,
        "named": [{"rule": c.rule, "node": c.node, "leg": c.leg} for c in told(diagnosis, mode)],
        "facts": msgspec.to_builtins(observed),
    }


def main(modes: list[str]) -> int:
    wanted = [mode for mode in modes if mode != "healthy"] or ([] if modes else [m for m in names() if not needs(m)])
    for shape in sorted({variant(mode) for mode in wanted} | ({""} if not modes or "healthy" in modes else set())):
        with Lab.up(variant=shape) as lab:
            if not shape and (not modes or "healthy" in modes):
                HEALTHY.write_text(_lines(healthy(lab)))
            for mode in [mode for mode in wanted if variant(mode) == shape]:
                case = record(lab, mode)
                (CASES / f"{mode}.json").write_text(_lines(case))
                for one in case["recordings"]:
                    print(f"{mode} at {one['where']}: {[cause['rule'] for cause in one['named']]}")
    return 0


def _lines(case: dict[str, Any]) -> str:
    """JSON with one fact a line: a case is read by people and compared by git."""
    text = json.dumps(case, indent=1)
    for one in case["recordings"]:
        for fact in one["facts"]:
            text = text.replace(json.dumps(fact, indent=1).replace("\n", "\n    "), json.dumps(fact))
    return text + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
