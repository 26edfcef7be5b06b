"""Compares the bilevel peers with the public benchmark_bilevel's own solvers: the same problem, settings and number of steps.

    git clone https://github.com/benchopt/benchmark_bilevel && git -C benchmark_bilevel checkout 3ad65dccff5cce27a656630a4f98be52920850b4
    python benches/compare/bilevel.py path/to/benchmark_bilevel path/to/the/bilevel/binary [--rounds 3]

Needs jax and numpy. The problem is that of the benchmark's ijcnn1, on made data: a ridge weight per feature, in logarithms, for a logistic
regression over 10 000 rows of 50 features, a validation loss over 2500 above; batches of 64, BOME without batches. Both sides
make the same number of steps with the same inner loops, hence of gradients and products; ours takes products with second derivatives from
differences of gradients, two calls each, theirs from automatic differentiation. Samples differ: blocks in shuffled order there, any
64 rows here, except with tables. On theirs compilation is over when the clock starts.

Prints a table in Markdown: |∇ψ| where x ended, from the exact implicit formula, of one seed each, and the time,
medians over the rounds, in which the two sides take turns. `double-loop` is ours alone, with as many calls as F2SA.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "crates/align-bilevel/tests/fixtures"))
import benchmark_bilevel as theirs  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

WIDTH, TRAIN, VALIDATION, BATCH, START = 50, 10_000, 2500, 64, -2.0
# Steps, and the settings of both sides in the benchmark's words.
METHODS = {
    "f2sa": (2000, dict(step_size=0.5, outer_ratio=0.005, lmbda0=1.0, delta_lmbda=0.01, n_inner_steps=10)),
    "soba": (10_000, dict(step_size=0.5, outer_ratio=0.005)),
    "saba": (10_000, dict(step_size=0.5, outer_ratio=0.1)),
    "stocbio": (1000, dict(step_size=0.5, outer_ratio=0.05, n_inner_steps=10, n_shia_steps=10)),
    "bome": (200, dict(step_size=0.5, outer_ratio=0.01, n_inner_steps=10)),
    "double-loop": (2000, dict(step_size=0.5, outer_ratio=0.05, n_inner_steps=10, rho=10.0, outer_steps=2000)),
}


def data(seed=0):
    """Rows times labels, of a logistic model in which every third feature says nothing."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=WIDTH) * (np.arange(WIDTH) % 3 > 0) / 3

    def rows(count):
        features = generator.normal(size=(count, WIDTH))
        labels = np.where(generator.random(count) < 1 / (1 + np.exp(-features @ weights)), 1.0, -1.0)
        return features * labels[:, None]

    return rows(TRAIN), rows(VALIDATION)


def objectives(train, validation):
    def loss(rows, y, start, size):
        batch = jax.lax.dynamic_slice(rows, (start, 0), (size, WIDTH))
        return jnp.mean(jax.nn.softplus(-batch @ y))

    train, validation = jnp.asarray(train), jnp.asarray(validation)

    def g(y, x, start=0, batch_size=1):
        return loss(train, y, start, batch_size) + 0.5 * jnp.sum(jnp.exp(x) * y**2)

    def f(y, x, start=0, batch_size=1):
        return loss(validation, y, start, batch_size)

    return g, f


def hyper_gradient_norm(x, train, validation):
    """|∇ψ| by Newton's method below and the implicit formula."""
    y, ridge = np.zeros(WIDTH), np.exp(x)

    def slope(rows, y):
        return -rows.T @ (1 / (1 + np.exp(rows @ y))) / len(rows)

    for _ in range(30):
        p = 1 / (1 + np.exp(-train @ y))
        hessian = (train.T * (p * (1 - p))) @ train / TRAIN + np.diag(ridge)
        gradient = slope(train, y) + ridge * y
        y = y - np.linalg.solve(hessian, gradient)
    assert np.linalg.norm(gradient) < 1e-10, "the lower level is solved"
    return np.linalg.norm(ridge * y * np.linalg.solve(hessian, slope(validation, y)))


def prepare(name, steps, settings, checkout, problem, seed):
    """A function that runs theirs once and returns x and seconds; compiled already."""
    common = {} if name == "bome" else dict(batch_size=BATCH, eval_freq=steps, random_state=seed)
    made = theirs.solver(checkout, name, **settings, **common)
    x, y = jnp.full(WIDTH, START), jnp.zeros(WIDTH)
    made.set_objective(*problem, TRAIN, VALIDATION, y, x)

    def run():
        remaining = (steps if name == "bome" else 1) + 1

        def callback():
            nonlocal remaining
            remaining -= 1
            return remaining >= 1

        begun = time.perf_counter()
        made.run(callback)
        ended = np.asarray(made.outer_var)
        return ended, time.perf_counter() - begun

    run()
    return run


def ours(binary, folder, name, steps):
    printed = subprocess.run([binary, folder, name, str(steps)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(printed.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    parser.add_argument("binary")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    train, validation = data()
    problem = objectives(train, validation)
    print(f"Start: |∇ψ| = {hyper_gradient_norm(np.full(WIDTH, START), train, validation):.2e}\n")
    print("| method | steps | our calls | theirs: ∇ψ at the end | ours | theirs, s | ours, s | theirs / ours |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        train.tofile(Path(folder) / "train.f64")
        validation.tofile(Path(folder) / "validation.f64")
        settings = {name: chosen for name, (_, chosen) in METHODS.items()}
        (Path(folder) / "settings.json").write_text(json.dumps({"width": WIDTH, "start": START, **settings}))
        for name, (steps, chosen) in METHODS.items():
            run = None if name == "double-loop" else prepare(name, steps, chosen, arguments.checkout, problem, 1)
            times, norms = [[], []], ["", ""]
            for _ in range(arguments.rounds):
                if run:
                    x, seconds = run()
                    norms[0] = f"{hyper_gradient_norm(x, train, validation):.2e}"
                    times[0].append(seconds)
                found = ours(arguments.binary, folder, name, steps)
                norms[1] = f"{hyper_gradient_norm(np.array(found['x']), train, validation):.2e}"
                times[1].append(found["seconds"])
            mine = statistics.median(times[1])
            yours = f"{statistics.median(times[0]):.3f}" if run else ""
            ratios = sorted(a / b for a, b in zip(*times))
            ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})" if run else ""
            print(f"| {name} | {steps} | {found['total']} | {norms[0]} | {norms[1]} | {yours} | {mine:.3f} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
