"""Run every benchmark in a process of its own and renew benchmarks/RESULTS.md.

python -m benchmarks.run [--gpu [--device cpu]] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time

import torch

from benchmarks.kit import HERE, is_met, machine

CPU = ("cache", "cache_read", "eval", "generate", "heads", "monitor", "oracle", "probes", "real", "steering", "view")
GPU = ("cache", "eval", "heads", "monitor", "oracle", "probes", "steering", "real")
GPU_SECONDS = 400.0
"""No further benchmark starts after this time on a GPU: `make gpu` takes 8 minutes at most."""
RESULTS = HERE / "RESULTS.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda",
                        help="with --gpu: cpu rehearses every line on small shapes and records nothing")  # fmt: skip
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    side = "gpu" if options.gpu else "cpu"
    is_rehearsal = options.gpu and options.device == "cpu"
    if options.gpu and not is_rehearsal and not torch.cuda.is_available():
        raise SystemExit("--gpu needs a CUDA device; none is visible here. `--device cpu` rehearses it.")
    began, failed = time.monotonic(), []
    for name in [one for one in (GPU if options.gpu else CPU) if not options.only or one in options.only]:
        if options.gpu and time.monotonic() - began > GPU_SECONDS:
            print(f"--- {name}: left out, {GPU_SECONDS:.0f} s are over", flush=True)
            continue
        if name == "real" and not os.environ.get("DIPTYCH_REAL"):
            print("--- real: left out, DIPTYCH_REAL names no folder of checkpoints", flush=True)
            continue
        failed += [name] if _run(name, side, options.device, gpu=options.gpu) else []
    if is_rehearsal:
        print(f"rehearsal on the CPU: {'every line ran' if not failed else 'failed'}; no table is recorded", flush=True)
    else:
        stamp = HERE / "results" / f"machine.{side}.json"
        stamp.write_text(json.dumps({"machine": machine(), "date": datetime.date.today().isoformat()}) + "\n")
        write_results()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _run(name: str, side: str, device: str, *, gpu: bool) -> int:
    """One benchmark in a process of its own; its exit status."""
    path = HERE / "results" / f"{name}.{side}.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(path)]
    print(f"--- {name}", flush=True)
    return subprocess.run([*command, *(["--gpu", "--device", device] if gpu else [])], check=False).returncode


def write_results() -> None:
    """RESULTS.md from the JSON files that are there; a side that was never measured is left out."""
    parts = [
        "# Benchmark results\n",
        "Written by `make bench` and `make gpu`; what was learnt is in [NOTES.md](NOTES.md).\n",
    ]
    for side, title in (("cpu", "CPU"), ("gpu", "GPU")):
        stamp = HERE / "results" / f"machine.{side}.json"
        if not stamp.exists():
            continue
        head = json.loads(stamp.read_text())
        parts.append(f"\n## {title}: {head['machine']} ({head['date']})\n")
        for path in sorted((HERE / "results").glob(f"*.{side}.json")):
            if path != stamp:
                parts.append(table(path.name.split(".")[0], json.loads(path.read_text())))
    RESULTS.write_text("\n".join(parts))


def table(name: str, rows: dict[str, dict[str, object]]) -> str:
    lines = [
        f"\n### {name}\n",
        "| what | ratio | goal | met | limit | largest difference of outputs |",
        "|---|---|---|---|---|---|",
    ]
    for what, row in rows.items():
        ratio, goal = float(str(row["ratio"])), str(row["goal"] or "")
        met = "" if not goal else ("yes" if is_met(ratio, goal) else "**no**")
        limit = f"{row['limit']:.3g}" if isinstance(row["limit"], float) else row["limit"] or ""
        agree = "" if row["agree"] is None else f"{float(str(row['agree'])):.1e}"
        lines.append(f"| {what} {row.get('note', '')} | {ratio:.3g} | {goal} | {met} | {limit} | {agree} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
