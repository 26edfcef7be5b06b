"""Compares `align merge` with mergekit over two Llama-shaped checkpoints of 1 GB: ours and theirs in turn, each in a process of its own.

    /path/to/venv/bin/python benches/compare/merge.py target/release/align [--rounds 5] [--mb 1000] [--dtypes float32,bfloat16]

The interpreter has torch, safetensors and mergekit (0.1.5). Every round runs, for each method, a copy of inputs and output, ours and
theirs, in an order that turns, and ratios are taken within the round. Of mergekit the merge alone is timed, without the start of Python
and its imports (some ten seconds); of ours the whole process. Peak memory is that of the whole process on both sides; pages of
files that ours only reads or writes are the system's and not in it, mergekit maps its inputs into its own memory.

Prints a table in Markdown: medians over the rounds with the range of the ratios. `copy` is the time to copy both inputs and the output
as files; `of copy` how fast ours is beside it (1 = as fast). `differ by` is the largest difference over the largest value: with TIES that
of a value that is kept on one side and trimmed on the other, both of the same magnitude at the cut.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = {
    "linear": """
models:
  - { model: A, parameters: { weight: 0.6 } }
  - { model: B, parameters: { weight: 0.4 } }
merge_method: linear
dtype: DTYPE
""",
    "slerp": """
models: [{ model: A }, { model: B }]
merge_method: slerp
base_model: A
parameters:
  t: [{ filter: self_attn, value: [0, 0.5, 1] }, { filter: mlp, value: [1, 0.5, 0] }, { value: 0.5 }]
dtype: DTYPE
""",
    "ties": """
models: [{ model: B, parameters: { weight: 1.0, density: 0.5 } }]
merge_method: ties
base_model: A
dtype: DTYPE
""",
}
# Times one merge; the imports are over when the clock starts.
THEIRS = """
import sys, time, yaml, logging
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
config, out = sys.argv[1:]
begun = time.perf_counter()
text = open(config).read()
run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), out, MergeOptions(quiet=True), config_source=text)
print(time.perf_counter() - begun)
"""
HIDDEN, INNER, VOCABULARY = 1024, 2816, 32000


def apart(work, *arguments):
    """Does work in a process of its own: the peak memory of a process counts what its parent held when it was begun."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def make(folder, seed, megabytes, dtype):
    """A Llama of about so many MB; the second is near the first, as a fine-tune is."""
    import torch
    from safetensors.torch import save_file

    dtype = getattr(torch, dtype)
    size = torch.empty(0, dtype=dtype).element_size()
    layer = 4 * HIDDEN**2 + 3 * HIDDEN * INNER + 2 * HIDDEN
    layers = max(1, round((megabytes * 1e6 / size - 2 * VOCABULARY * HIDDEN) / layer))
    base, change = torch.Generator().manual_seed(1), torch.Generator().manual_seed(seed)
    tensors = {}

    def add(name, *shape):
        values = torch.randn(shape, generator=base) * 0.02
        if seed > 1:
            values += torch.randn(shape, generator=change) * 0.002
        tensors[name] = values.to(dtype)

    add("model.embed_tokens.weight", VOCABULARY, HIDDEN)
    for i in range(layers):
        at = f"model.layers.{i}."
        add(at + "input_layernorm.weight", HIDDEN)
        for part in "qkvo":
            add(at + f"self_attn.{part}_proj.weight", HIDDEN, HIDDEN)
        add(at + "post_attention_layernorm.weight", HIDDEN)
        add(at + "mlp.gate_proj.weight", INNER, HIDDEN)
        add(at + "mlp.up_proj.weight", INNER, HIDDEN)
        add(at + "mlp.down_proj.weight", HIDDEN, INNER)
    add("model.norm.weight", HIDDEN)
    add("lm_head.weight", VOCABULARY, HIDDEN)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "tie_word_embeddings": False,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    (folder / "config.json").write_text(json.dumps(config))


def process(command):
    """Runs a command; returns what it printed, its seconds and its peak memory in MB."""
    begun = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - begun
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{command[0]} failed:\n{out}{err}")
    return out, seconds, usage.ru_maxrss / 1000


def ours(align, config, out):
    _, seconds, memory = process([align, "merge", str(config), str(out)])
    return seconds, memory


def theirs(config, out):
    printed, _, memory = process([sys.executable, "-c", THEIRS, str(config), str(out)])
    return float(printed.split()[-1]), memory


def copies(root, output):
    """Seconds to copy both inputs and the output."""
    begun = time.perf_counter()
    for index, source in enumerate((root / "A", root / "B", output)):
        shutil.copyfile(source / "model.safetensors", root / f"copy-{index}")
    seconds = time.perf_counter() - begun
    for index in range(3):
        (root / f"copy-{index}").unlink()
    return seconds


def difference(a, b):
    """The largest difference between two results, over the largest value."""
    from safetensors import safe_open

    def shards(folder):
        index = folder / "model.safetensors.index.json"
        names = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
        return {key: (folder / name) for name in names for key in safe_open(folder / name, "pt").keys()}

    ours, theirs, worst = shards(a), shards(b), 0.0
    assert ours.keys() == theirs.keys(), "the results have different tensors"
    for key in ours:
        x = safe_open(ours[key], "pt").get_tensor(key).float()
        y = safe_open(theirs[key], "pt").get_tensor(key).float()
        worst = max(worst, ((x - y).abs().max() / y.abs().max()).item())
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("align", help="the binary, built in release")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mb", type=float, default=1000, help="size of one input")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--folder", default=None, help="where the files are made; their disk is measured too")
    given = parser.parse_args()
    print(f"{os.cpu_count()} processors, {given.rounds} rounds, two inputs of {given.mb:.0f} MB\n")
    print("| dtype | method | copy | ours | of copy | mergekit | mergekit / ours | peak ours | peak mergekit | differ by |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for dtype in given.dtypes.split(","):
        with tempfile.TemporaryDirectory(dir=given.folder) as root:
            root = Path(root)
            for seed, name in ((1, "A"), (2, "B")):
                apart(make, root / name, seed, given.mb, dtype)
            for method in given.methods.split(","):
                text = METHODS[method].replace("DTYPE", dtype)
                for name in "AB":
                    text = text.replace(f"model: {name}", f"model: {root / name}")
                (root / "merge.yml").write_text(text)
                rounds, differs = [], 0.0
                for number in range(given.rounds + 1):
                    out = {"ours": root / "ours", "theirs": root / "theirs"}
                    runs = {
                        "ours": lambda: ours(given.align, root / "merge.yml", out["ours"]),
                        "theirs": lambda: theirs(root / "merge.yml", out["theirs"]),
                    }
                    order = ["ours", "theirs"] if number % 2 == 0 else ["theirs", "ours"]
                    found = {name: runs[name]() for name in order}
                    copied = copies(root, out["ours"])
                    if number == 0:
                        differs = apart(difference, out["ours"], out["theirs"])  # the first round fills caches and is not timed
                    else:
                        rounds.append((copied, *found["ours"], *found["theirs"]))
                    for folder in out.values():
                        shutil.rmtree(folder)
                copied, mine, memory, other, other_memory = (statistics.median(column) for column in zip(*rounds))
                of_copy = [round[0] / round[1] for round in rounds]
                faster = [round[3] / round[1] for round in rounds]
                spread = lambda ratios: f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                print(
                    f"| {dtype} | {method} | {copied:.2f} s | {mine:.2f} s | {spread(of_copy)} | {other:.2f} s | {spread(faster)} "
                    f"| {memory:.0f} MB | {other_memory:.0f} MB | {differs:.1e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
