"""Compares this workspace with PyTorch and transformers: ours and theirs in turn, each in a fresh process.

    PYTHON=/path/to/venv/bin/python python benches/compare/run.py [--rounds 5] [--tasks train,forward] [--vocabularies 8192,32000]

`PYTHON` is an interpreter with torch and transformers, for the task `ppo` with trl 1.12.0 too; without it only ours is run. Identical runs differ by up to two
times minutes apart on a shared machine, so every round runs both and the ratio is taken within the round.
Prints a table in Markdown: medians, and the range of the ratio; one JSON line a run goes to stderr.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# How many timed iterations a process makes.
ITERATIONS = {"forward": 5, "logits": 5, "generate1": 3, "generate16": 2, "ppo": 5}


def build():
    """The path of the binary, built in release."""
    command = ["cargo", "build", "--release", "--bench", "compare", "--message-format=json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    messages = [json.loads(line) for line in lines]
    return next(m["executable"] for m in messages if m.get("target", {}).get("name") == "compare" and m.get("executable"))


def run(command, threads):
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    print(done.stdout.strip(), file=sys.stderr, flush=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tasks", default="forward,logits,train,blockwise,generate1,generate16")
    parser.add_argument("--vocabularies", default="8192,32000")
    parser.add_argument("--iterations", type=int, help="timed iterations a process, instead of the task's own number")
    arguments = parser.parse_args()
    binary, python = build(), os.environ.get("PYTHON")
    print("| task | V | ours tok/s | theirs tok/s | ratio (range) | per CPU s (range) | ours MiB | theirs MiB | memory | above start |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for task in arguments.tasks.split(","):
        for vocabulary in arguments.vocabularies.split(","):
            iterations = arguments.iterations or ITERATIONS.get(task, 3)
            call = [task, vocabulary, str(iterations)]
            ours, theirs = [], []
            for _ in range(arguments.rounds):
                ours.append(run([binary, *call], arguments.threads))
                if python:
                    theirs.append(run([python, str(HERE / "theirs.py"), *call, "--threads", str(arguments.threads)], arguments.threads))
            report(task, vocabulary, ours, theirs)


def report(task, vocabulary, ours, theirs):
    median = lambda runs, key: statistics.median(found[key] for found in runs)
    speed, peak, above = (median(ours, key) for key in ("tokens_per_s", "peak_rss_mib", "above_start_mib"))
    if not theirs:
        print(f"| {task} | {vocabulary} | {speed:.0f} | | | | {peak:.0f} | | | {above:.0f} |", flush=True)
        return

    def ratio(key):
        ratios = sorted(a[key] / b[key] for a, b in zip(ours, theirs))
        return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"

    their_peak, their_above = median(theirs, "peak_rss_mib"), median(theirs, "above_start_mib")
    print(
        f"| {task} | {vocabulary} | {speed:.0f} | {median(theirs, 'tokens_per_s'):.0f}"
        f" | {ratio('tokens_per_s')} | {ratio('tokens_per_cpu_s')}"
        f" | {peak:.0f} | {their_peak:.0f} | {peak / their_peak:.2f} | {above / their_above:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
