"""Row AA: node, next hop and network die at each step around DATA and the dot. ``python -m bench.crash`` does the same at length.

Real processes and SIGKILL: a message that got 250 lies at the next hop, whole; it lies there twice only where the next hop had it and
the node could not know, or not say so.
"""

from __future__ import annotations

import asyncio
from itertools import cycle
from pathlib import Path

from bench.crash import STEPS, VICTIMS, Round, crash

# Each step once, with the next victim in turn.
CASES = tuple(zip(STEPS, cycle(VICTIMS), strict=False))


def test_no_250_without_the_message_at_the_next_hop_and_no_copy_without_excuse(tmp_path: Path) -> None:
    report = asyncio.run(crash(tmp_path, CASES, seed=1))
    assert report.good, report.text()
    assert len(report.rounds) == len(STEPS)
    assert {each.victim for each in report.rounds} == set(VICTIMS)
    # Where the answer was lost for certain, the message comes twice: a proof that deed and step met.
    doubled = {each.step for each in report.rounds if each.doubled}
    assert {"the dot is with the next hop", "250 comes from the next hop"} <= doubled


def told(**changes: object) -> Round:
    said = {"step": "the dot goes to the next hop", "victim": "network reset", "fired": True, "first": 451, "attempts": 2, "answered": True,
            "copies": 1, "intact": True, "dot_passed": True, "taken_passed": False}  # fmt: skip
    return Round(**{**said, **changes})  # type: ignore[arg-type]


def test_the_judge_sees_what_it_is_there_for() -> None:
    assert told().good and told(copies=2).good
    assert not told(copies=0).good, "250 and nothing there"
    assert not told(intact=False).good
    assert not told(answered=False).good
    assert not told(fired=False).good
    assert not told(copies=2, dot_passed=False).good, "doubled before the dot"
    assert not told(copies=2, taken_passed=True).good, "the node knew and lived"
    assert told(copies=2, taken_passed=True, victim="node").good
    assert not told(copies=2, first=250).good, "sent twice by the node itself"
    assert not told(copies=3).good
