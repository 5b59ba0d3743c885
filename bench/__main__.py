"""``python -m bench``: measure, print a table, and keep figures and table in bench/results/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import network, picture, report
from bench.cases import CASES, Bench
from bench.filters import measure_filters
from bench.peers import PEERS
from bench.processes import Missing

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    given = _arguments()
    network.enter("bench")
    bench = Bench(given.rounds, given.scale, given.idle, tuple(given.peers))
    rows, filters = [], []
    try:
        for letter in given.cases:
            report.tell(f"case {letter}: {CASES[letter].title}")
            rows += CASES[letter].measure(bench)
        if given.filters:
            report.tell("filters")
            filters = measure_filters(given.rounds, given.scale)
    except Missing as missing:
        sys.stderr.write(f"bench: {missing}\n")
        return 1
    written = report.write(given.out, rows, filters, vars(given), picture.draw)
    sys.stdout.write(written)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure a node of this checkout on loopback.")
    parser.add_argument("--cases", default="".join(CASES), help="letters of the cases to run (default: all): " + _titles())
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each, alternating between direct and through the node (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of messages (1.0)")
    parser.add_argument("--idle", type=int, default=10_000, help="idle sessions of case d (10000)")
    parser.add_argument("--peers", nargs="*", choices=sorted(PEERS), default=[], help="other proxies to measure beside it")
    parser.add_argument("--filters", action="store_true", help="also measure what groups of filters cost")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of table and figures (bench/results)")
    return parser.parse_args()


def _titles() -> str:
    return "; ".join(f"{letter} {case.title}" for letter, case in CASES.items())


if __name__ == "__main__":
    sys.exit(main())
