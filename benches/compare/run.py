"""Compares this workspace with PyTorch and transformers: ours and theirs in turn, each in a fresh process.

    PYTHON=/path/to/venv/bin/python python benches/compare/run.py [--rounds 5] [--tasks train,forward] [--vocabularies 8192,32000]

`PYTHON` is an interpreter with torch and transformers, for the tasks `ppo` and `dpo` with trl 1.12.0 too; without it only ours is run.
Identical runs differ by up to two times minutes apart on a shared machine, so every round runs both and the ratio is taken within
the round. Prints a table in Markdown: medians, and the range of the ratio; one JSON line a run goes to stderr. What other programs took
of the processors is printed below: beside them PyTorch's threads, which wait for each other actively, lose more than ours, in processor
time too, so that ratios of a busy machine flatter us.

`dpo` is run against two of TRL's ways, the reference asked in every step and asked before; `dpo2` takes two pairs at a time and is
run against the first. That both sides compute the same losses is checked. `superhf` compares our own algorithms and has a table of its own.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# How many timed iterations a process makes.
ITERATIONS = {"forward": 5, "logits": 5, "generate1": 3, "generate16": 2, "ppo": 5, "dpo": 5, "dpo2": 5, "superhf": 5, "steady": 500, "steady-dpo": 500}
# What the other side runs beside a task, where that is not the task itself.
THEIRS = {"dpo": ["dpo", "dpo-precomputed"], "dpo2": ["dpo"], "steady-dpo": [], "superhf": []}
# How far losses and log-probabilities of the two sides may be apart: f32, sums over answers of up to 96 tokens.
LOSS, LOGPS = 1e-4, 1e-5


def build():
    """The path of the binary, built in release."""
    command = ["cargo", "build", "--release", "--bench", "compare", "--message-format=json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    messages = [json.loads(line) for line in lines]
    return next(m["executable"] for m in messages if m.get("target", {}).get("name") == "compare" and m.get("executable"))


def run(command, threads):
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    begun, others = time.perf_counter(), busy_seconds() - own_seconds()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    others = busy_seconds() - own_seconds() - others
    print(done.stdout.strip(), file=sys.stderr, flush=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    found["others"] = max(0.0, others / (time.perf_counter() - begun) / os.cpu_count())
    return found


def busy_seconds():
    """Processor seconds of everything since the machine started, without idling and waiting for disks."""
    fields = [int(ticks) for ticks in open("/proc/stat").readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    return sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


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
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    notes, wrong = [], []
    for task in arguments.tasks.split(","):
        for vocabulary in arguments.vocabularies.split(","):
            iterations = str(arguments.iterations or ITERATIONS.get(task, 3))
            peers = {peer: [] for peer in THEIRS.get(task, [task])} if python else {}
            ours = []
            with tempfile.TemporaryDirectory() as folder:
                if task in ("dpo", "dpo2") and peers:
                    subprocess.run([binary, "dpo-files", vocabulary, iterations, folder], check=True)
                for _ in range(arguments.rounds):
                    ours.append(run([binary, task, vocabulary, iterations], arguments.threads))
                    for peer, found in peers.items():
                        call = [peer, vocabulary, iterations, "--threads", str(arguments.threads), "--folder", folder]
                        found.append(run([python, str(HERE / "theirs.py"), *call], arguments.threads))
            others = [found["others"] for found in sum(peers.values(), ours)]
            notes.append(f"{task} {vocabulary}: other programs took {spread(others)} of the processors")
            if task == "superhf":
                notes += superhf_notes(vocabulary, ours)
            elif not peers:
                report(task, vocabulary, ours, [])
            for peer, theirs in peers.items():
                report(task if peer == task else f"{task} beside {peer}", vocabulary, ours, theirs)
                if task in ("dpo", "dpo2"):
                    found, same = dpo_notes(f"{task} beside {peer}", vocabulary, ours, theirs)
                    notes += found
                    wrong += [] if same else [f"{peer} {vocabulary}"]
            if task.startswith("steady"):
                parts = [f"{name.removesuffix('_at_end')} {found[name.replace('_at_end', '_at_one_fifth')]:.1f} after a fifth, {found[name]:.1f} at the end" for found in ours for name in found if name.endswith("_at_end")]
                notes.append(f"{task} {vocabulary}, {iterations} steps: {'; '.join(parts)}")
    print("", *notes, sep="\n")
    if wrong:
        sys.exit(f"the two sides do not compute the same: {', '.join(wrong)}")


def spread(values):
    values = sorted(values)
    return f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})"


def dpo_notes(name, vocabulary, ours, theirs):
    """How far apart the numbers of all steps are, whether that is rounding, and what asking the reference beforehand took."""
    losses = [(a, b) for mine, other in zip(ours, theirs) for a, b in zip(mine["losses"], other["losses"], strict=True)]
    logps = [pair for mine, other in zip(ours, theirs) for side in (0, 1) for pair in zip(mine["logps"][side], other["logps"][side], strict=True)]
    loss, logp = max(abs(a - b) for a, b in losses), max(abs(a - b) / abs(b) for a, b in logps)
    (first, last), (their_first, their_last) = ([found["losses"][at] for at in (0, -1)] for found in (ours[0], theirs[0]))
    notes = [
        f"{name} {vocabulary}: loss of the first step {first:.6f}, theirs {their_first:.6f}, of the last {last:.6f}, theirs {their_last:.6f};"
        f" over all steps at most {loss:.1e} apart, log-probabilities of answers {logp:.1e} of their size"
    ]
    if "anchors_s" in theirs[0]:
        mine, other = (statistics.median(found["anchors_s"] for found in runs) for runs in (ours, theirs))
        ratio = spread(b["anchors_s"] / a["anchors_s"] for a, b in zip(ours, theirs))
        notes.append(f"{name} {vocabulary}: anchors of {ours[0]['anchored_tokens']} tokens took {mine:.1f} s, theirs {other:.1f} s, {ratio} times as long")
    return notes, loss < LOSS and logp < LOGPS


def superhf_notes(vocabulary, ours):
    """Seconds of an iteration, medians over processes; ratios over all of them."""
    names = ["whole", "generate", "log_probs", "score", "update"]
    notes = [f"superhf {vocabulary}, {len(ours)} processes of {ours[0]['rounds']} rounds; seconds of an iteration: {', '.join(names)}"]
    for algorithm in ("superhf_s", "ppo_gae_s", "ppo_no_critic_s"):
        medians = [statistics.median(found[algorithm][name] for found in ours) for name in names]
        notes.append(f"{algorithm}: {', '.join(f'{seconds:.3f}' for seconds in medians)}")
    for ratio in ("superhf_over_ppo_gae", "superhf_over_ppo_no_critic"):
        middle, least, most = zip(*(found[ratio] for found in ours))
        notes.append(f"{ratio}: {statistics.median(middle):.3f} ({min(least):.3f} to {max(most):.3f})")
    return notes


def report(task, vocabulary, ours, theirs):
    median = lambda runs, key: statistics.median(found[key] for found in runs)
    speed, peak, above = (median(ours, key) for key in ("tokens_per_s", "peak_rss_mib", "above_start_mib"))
    if not theirs:
        print(f"| {task} | {vocabulary} | {speed:.0f} | | | | {peak:.0f} | | | {above:.0f} |", flush=True)
        return

    ratio = lambda key: spread(a[key] / b[key] for a, b in zip(ours, theirs))
    their_peak, their_above = median(theirs, "peak_rss_mib"), median(theirs, "above_start_mib")
    print(
        f"| {task} | {vocabulary} | {speed:.0f} | {median(theirs, 'tokens_per_s'):.0f}"
        f" | {ratio('tokens_per_s')} | {ratio('tokens_per_cpu_s')}"
        f" | {peak:.0f} | {their_peak:.0f} | {peak / their_peak:.2f} | {above / their_above:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
