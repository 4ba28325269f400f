"""`python -m study.embedded --seed 0 --out pair`: build the pair, print its gates, fail if one does not hold."""

from __future__ import annotations

import argparse
import sys

from study.embedded.build import build, passed


def main() -> int:
    """Parse the command line, build, report; 0 if every gate holds."""
    parser = argparse.ArgumentParser(prog="python -m study.embedded", description="Build the embedded pair on a CPU.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, help="a new or empty folder")
    parser.add_argument("--test", action="store_true", help="score the test split too: once, for a pair that ships")
    args = parser.parse_args()
    record = build(args.seed, args.out, test=args.test, log=_log)
    for split in ("validation", "test"):
        for name, gate in record.get(split, {}).get("gates", {}).items():
            print(f"{split} {name}: {gate['value']:.4g} (bound {gate['bound']}) {'pass' if gate['passed'] else 'FAIL'}")
    return 0 if passed(record) else 1


def _log(stage: str, step: int, value: float) -> None:
    if step % 20 == 19:
        print(f"{stage} {step + 1}: {value:.4f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
