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
    if arguments.task == "ppo":
        return ppo(arguments)

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
    report(arguments, tokens, seconds, time.process_time() - processor, before)


def ppo(arguments):
    """The PPO of TRL's last release that has one, 1.12.0; a round is an iteration. See ours.rs for its sizes."""
    import os

    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        PreTrainedTokenizerFast,
        TrainerCallback,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    before = memory("VmRSS")
    v, (sequences, prompt, response) = arguments.vocabulary, (64, 16, 32)
    config = dict(
        vocab_size=v,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    policy, reference = (LlamaForCausalLM(LlamaConfig(**config)) for _ in range(2))
    value, reward = (LlamaForSequenceClassification(LlamaConfig(**config, num_labels=1)) for _ in range(2))
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(v)}, unk_token="w1"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w0", padding_side="left")
    ids = [[(r * 7919 + c * 104729 + 1) % v for c in range(prompt)] for r in range(sequences)]
    seconds, processor = [], [0.0, 0.0]

    class Clock(TrainerCallback):
        last = None

        def on_step_end(self, *_, **__):
            now = time.perf_counter()
            if self.last is None:
                processor[0] = time.process_time()
            else:
                seconds.append(now - self.last)
                processor[1] = time.process_time()
            self.last = now

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=folder,
                per_device_train_batch_size=sequences,
                gradient_accumulation_steps=1,
                num_mini_batches=1,
                num_ppo_epochs=4,
                total_episodes=(arguments.rounds + 1) * sequences,
                response_length=response,
                local_rollout_forward_batch_size=sequences,
                num_sample_generations=0,
                bf16=False,
                gradient_checkpointing=False,
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
            ),
            processing_class=tokenizer,
            model=policy,
            ref_model=reference,
            reward_model=reward,
            value_model=value,
            train_dataset=Dataset.from_dict({"input_ids": ids}),
            callbacks=[Clock()],
        )
        import contextlib
        import sys

        with contextlib.redirect_stdout(sys.stderr):
            trainer.train()
    report(arguments, sequences * response, seconds, processor[1] - processor[0], before)


def report(arguments, tokens, seconds, processor, before):
    peak = memory("VmHWM")
    found = {
        "task": arguments.task,
        "vocabulary": arguments.vocabulary,
        "tokens_per_s": round(tokens / statistics.median(seconds), 1),
        "tokens_per_cpu_s": round(tokens * len(seconds) / processor, 1),
        "peak_rss_mib": round(peak),
        "above_start_mib": round(peak - before),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
