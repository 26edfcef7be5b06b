"""One task of the comparison in PyTorch and transformers; see ours.rs for the tasks and run.py for the order.

    python theirs.py TASK VOCABULARY ROUNDS [--threads 2] [--dtype float32|bfloat16]
"""

import argparse
import json
import statistics
import time

ROWS, WIDTH, PROMPT, NEW = 8, 256, 64, 128


def memory(line):
    """A line of /proc/self/status in MiB."""
    for found in open("/proc/self/status"):
        if found.startswith(line + ":"):
            return int(found.split()[1]) / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("task")
    parser.add_argument("vocabulary", type=int)
    parser.add_argument("rounds", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    before = memory("VmRSS")
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=arguments.vocabulary,
            hidden_size=512,
            intermediate_size=1376,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=2048,
            tie_word_embeddings=False,
        )
    ).to(getattr(torch, arguments.dtype))

    def rows(count, width):
        ids = [[(r * 7919 + c * 104729 + 1) % arguments.vocabulary for c in range(width)] for r in range(count)]
        return torch.tensor(ids)

    ids, tokens, task = rows(ROWS, WIDTH), ROWS * WIDTH, arguments.task
    if task in ("forward", "logits"):
        model.eval()
        labels = ids if task == "forward" else None

        def step():
            with torch.no_grad():
                model(input_ids=ids, labels=labels, use_cache=False)

    elif task in ("train", "steady"):
        if task == "steady":
            ids, tokens = rows(2, 32), 2 * 32
        model.train()
        # The optimizer that transformers' Trainer takes.
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.0, fused=True)

        def step():
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    elif task in ("backward", "whole"):
        model.train()

        def step():
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            model.zero_grad()

    elif task == "blockwise":
        model.train()
        model.gradient_checkpointing_enable()

        def step():
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            model.zero_grad()

    elif task in ("generate1", "generate16"):
        count = int(task.removeprefix("generate"))
        prompts, tokens = rows(count, PROMPT), count * NEW
        mask = torch.ones_like(prompts)
        model.eval()

        def step():
            with torch.no_grad():
                out = model.generate(
                    prompts,
                    attention_mask=mask,
                    do_sample=False,
                    min_new_tokens=NEW,
                    max_new_tokens=NEW,
                    eos_token_id=None,
                    pad_token_id=0,
                )
            assert out.shape == (count, PROMPT + NEW)

    else:
        raise SystemExit(f"unknown task {task}")

    step()
    seconds, processor = [], time.process_time()
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    processor = time.process_time() - processor
    peak = memory("VmHWM")
    found = {
        "task": task,
        "vocabulary": arguments.vocabulary,
        "tokens_per_s": round(tokens / statistics.median(seconds), 1),
        "tokens_per_cpu_s": round(tokens * arguments.rounds / processor, 1),
        "peak_rss_mib": round(peak),
        "above_start_mib": round(peak - before),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
