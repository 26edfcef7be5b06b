"""One task of the comparison in PyTorch and transformers; see ours.rs for the tasks and run.py for the order.

    python theirs.py TASK VOCABULARY ROUNDS [--threads 2] [--dtype float32|bfloat16] [--folder FOLDER]

`--folder` is for `dpo` and `dpo-precomputed`: what `ours.rs` wrote for them.
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
    parser.add_argument("--folder")
    arguments = parser.parse_args()
    if arguments.task == "ppo":
        return ppo(arguments)
    if arguments.task.startswith("dpo"):
        return dpo(arguments)

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
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, TrainerCallback
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
    ids = [[(r * 7919 + c * 104729 + 1) % v for c in range(prompt)] for r in range(sequences)]
    seconds, processor, clock = clocked(TrainerCallback)
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
            processing_class=tokenizer(v),
            model=policy,
            ref_model=reference,
            reward_model=reward,
            value_model=value,
            train_dataset=Dataset.from_dict({"input_ids": ids}),
            callbacks=[clock],
        )
        import contextlib
        import sys

        with contextlib.redirect_stdout(sys.stderr):
            trainer.train()
    report(arguments, sequences * response, seconds, processor[1] - processor[0], before)


def dpo(arguments):
    """The `DPOTrainer` of TRL 1.12.0; a round is a step. With `dpo-precomputed` the reference is asked before training instead
    of in every step. Logging, saving and evaluation are off; what the trainer computes for its log in every step (entropies,
    token accuracy, means of logits) cannot be. See dpo.rs for the pairs.
    """
    import tempfile

    import torch
    from datasets import Dataset
    from transformers import LlamaForCausalLM, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    torch.set_num_threads(arguments.threads)
    before = memory("VmRSS")
    folder, batch = arguments.folder, 8
    pairs = json.load(open(f"{folder}/pairs.json"))
    assert len(pairs) == (arguments.rounds + 1) * batch
    count = lambda pair: 2 * len(pair["prompt_ids"]) + len(pair["chosen_ids"]) + len(pair["rejected_ids"])
    tokens = [sum(count(pair) for pair in pairs[at : at + batch]) for at in range(batch, len(pairs), batch)]
    seconds, processor, clock = clocked(TrainerCallback)
    losses, logps, anchoring = [], [[], []], []

    class Trainer(DPOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset  # tokens already

        def _precompute_ref_logps(self, *call):
            start = time.perf_counter()
            found = super()._precompute_ref_logps(*call)
            anchoring.append(time.perf_counter() - start)
            return found

        def compute_loss(self, *call, **names):
            loss = super().compute_loss(*call, **names)
            losses.append(loss.item())
            for side, seen in zip(("chosen", "rejected"), logps):
                seen.append(self._metrics["train"][f"logps/{side}"][-1])
            return loss

    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            # As in the other tasks, the optimizer that transformers' Trainer takes; numbers as ours.
            args=DPOConfig(
                output_dir=output,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=1,
                max_steps=arguments.rounds + 1,
                train_sampling_strategy="sequential",
                learning_rate=2e-5,
                lr_scheduler_type="constant",
                beta=0.1,
                max_length=None,
                precompute_ref_log_probs=arguments.task == "dpo-precomputed",
                bf16=False,
                gradient_checkpointing=False,
                use_cpu=True,
                report_to=[],
                logging_strategy="no",
                save_strategy="no",
                disable_tqdm=True,
            ),
            processing_class=tokenizer(arguments.vocabulary),
            # The reference is left to the trainer, which loads the same folder again.
            model=LlamaForCausalLM.from_pretrained(f"{folder}/model", dtype=torch.float32),
            train_dataset=Dataset.from_list(pairs),
            callbacks=[clock],
        )
        import contextlib
        import sys

        with contextlib.redirect_stdout(sys.stderr):
            trainer.train()
    extra = {"losses": losses, "logps": logps}
    if anchoring:
        extra.update(anchors_s=sum(anchoring), anchored_tokens=sum(map(count, pairs)))
    report(arguments, tokens, seconds, processor[1] - processor[0], before, **extra)


def tokenizer(vocabulary):
    """Words `w0`, `w1`, …, of which the first pads and ends."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w1"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w0", padding_side="left")


def clocked(base):
    """Seconds of each step but the first, processor seconds at their start and end, and the callback that takes them."""
    seconds, processor = [], [0.0, 0.0]

    class Clock(base):
        last = None

        def on_step_end(self, *_, **__):
            now = time.perf_counter()
            if self.last is None:
                processor[0] = time.process_time()
            else:
                seconds.append(now - self.last)
                processor[1] = time.process_time()
            self.last = now

    return seconds, processor, Clock()


def report(arguments, tokens, seconds, processor, before, **extra):
    """`tokens` of a round, or of each."""
    peak = memory("VmHWM")
    tokens = tokens if isinstance(tokens, list) else [tokens] * len(seconds)
    found = {
        "task": arguments.task,
        "vocabulary": arguments.vocabulary,
        "tokens_per_s": round(statistics.median(n / s for n, s in zip(tokens, seconds, strict=True)), 1),
        "tokens_per_cpu_s": round(sum(tokens) / processor, 1),
        "peak_rss_mib": round(peak),
        "above_start_mib": round(peak - before),
        **extra,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
