//! What stands below `--help` of each sub-command: examples, and what there is to know before using it.

pub(crate) const ALIGN: &str = "\
Begin with `align run quickstart`; `align recipes ls` shows what else there is, `align doctor` what works here.
Exit codes: 0 done, 1 an error that was explained, 2 a wrong command line, 130 interrupted (what was done is saved).";

pub(crate) const RUN: &str = "\
Stages name one another as `@stage` and run in order. A finished stage is skipped on --resume, an unfinished training goes
on from its newest checkpoint; what comes out is the same, bit for bit. Ctrl-C saves and says how to go on (exit code 130).

Examples:
  align run quickstart                                 SALSA from nothing, in a few minutes on a CPU
  align run recipes/quickstart.toml ppo.ppo.kl_coef=0.1 output_dir=runs/stiffer
  align run salsa inputs.model=my-model inputs.pairs=pairs.jsonl
  align run recipes/quickstart.toml --resume           go on after Ctrl-C or a crash";

pub(crate) const INIT: &str = "\
The recipe has `output_dir`, `tokenizer` (a folder with tokenizer.json), `seed`, and `[config]`: the keys of a Hugging Face
config.json. `vocab_size` and special ids are the tokenizer's.

Example:
  align init tiny.toml config.hidden_size=128          the model lies in <output_dir>/model";

pub(crate) const SFT: &str = "\
Rows: `prompt` and `completion`, `messages`, `text`, or `chosen` of preference pairs. The loss is on what the assistant says.
A table `[lora]` (rank, alpha, dropout, targets) trains adapters: model/ has them merged, adapter/ has them in PEFT's form.
`shuffle_window = 10000` streams data larger than memory; `recompute = true` trains in a fraction of the memory.

Examples:
  align recipes cp sft my-sft.toml
  align sft my-sft.toml model=org/name data.path=chats.jsonl.gz output_dir=runs/sft
  align sft my-sft.toml lora.rank=16 training.max_steps=200";

pub(crate) const REWARD: &str = "\
Rows: `chosen` and `rejected`, with `prompt` or the prompt inside, perhaps `margin`. The model is a language model (it gets a
score head) or a reward model; the result loads in transformers as *ForSequenceClassification.

Example:
  align reward reward model=runs/sft/model data.path=pairs.jsonl data.held_out=0.1 output_dir=runs/reward";

pub(crate) const PPO: &str = "\
`reference` is what the policy is held to: the model it starts from is plain PPO, a soup is SALSA. `seeds = [0, 1, 2]` runs
three times, into seed-0/, seed-1/, seed-2/. Presets: trl, openrlhf, n-details.

Examples:
  align ppo ppo policy=runs/sft/model reference=runs/soup reward=runs/reward/model prompts.path=prompts.jsonl
  align ppo my-ppo.toml ppo.preset=openrlhf ppo.kl_coef=0.02 seeds=[0,1,2]
  align ppo my-ppo.toml --resume";

pub(crate) const DPO: &str = "\
Rows: `chosen` and `rejected`, with `prompt` or the prompt inside; with a table `[kto]`, `prompt`, `completion` and `label`.
`[loss] kind`: dpo, robust, ipo, hinge, simpo, sppo. The reference is the model itself unless `reference` names another; its
log-probabilities are computed once.

Examples:
  align dpo dpo model=runs/sft/model data.path=pairs.jsonl data.held_out=0.1 output_dir=runs/dpo
  align dpo my-dpo.toml loss.kind=ipo loss.beta=0.05 lora.rank=16";

pub(crate) const NASH: &str = "\
`[oracle] kind`: reward (a reward model, ensemble or server), pairwise (trained by `align reward` with pairwise = true),
http (a judge in OpenAI's form), mixture, recorded, world. `[self_play.method] kind`: inpo, sppo, nash_md, dpo. What is held out
of the prompts serves for win rates against the reference and against earlier policies.

Examples:
  align nash nash policy=runs/sft/model oracle.model=runs/pairwise/model prompts.path=prompts.jsonl
  align nash my-nash.toml self_play.method.eta=0.01 self_play.iterations=5
  align nash my-nash.toml --resume";

pub(crate) const ONLINE: &str = "\
As `align nash`, with the losses of online training: `[self_play.method] kind` is dpo (with any `loss`), xpo or nash_md. With
`prompts_per_iteration` as large as `minibatch` every optimiser step has fresh answers.

Example:
  align online online policy=runs/sft/model oracle.model=runs/reward/model prompts.path=prompts.jsonl";

pub(crate) const SUPERHF: &str = "\
Every group draws `superbatch_size` answers a prompt, keeps the best by the reward and takes supervised steps on them; a KL
term holds the policy to its start. `superhf/similarity` (METEOR between answers to different prompts) tells collapse.

Examples:
  align superhf superhf policy=runs/sft/model reward=runs/reward/model prompts.path=prompts.jsonl
  align superhf my-superhf.toml superhf.kl_coef=0.5 superhf.superbatch_size=8";

pub(crate) const SOUP: &str = "\
Models of one architecture, tokenizer and ancestor; sums are in f64 whatever the files hold. Memory stays small at any size.

Examples:
  align soup --out runs/soup runs/sft-a/model runs/sft-b/model
  align soup --out runs/soup --weights 0.7,0.3 --dtype bf16 runs/sft-a/model runs/sft-b/model
  align soup --out runs/soup --base base runs/sft-a/adapter runs/sft-b/adapter
  align soup --out runs/adapter --as-adapter runs/sft-a/adapter runs/sft-b/adapter

--greedy begins with the model that is best alone and keeps another only if the soup is no worse with it; every score is written
down, and --resume goes on. --learned finds weights by gradient descent on rows nobody trained on. --map evaluates weighted sums of
three models on the plane through them and draws it.
  align soup --out runs/greedy --greedy --data held_out.jsonl runs/*/model
  align soup --out runs/learned --learned --by layer --data held_out.jsonl runs/sft-a/model runs/sft-b/model
  align soup --out runs/map --map --data held_out.jsonl runs/sft-a/model runs/sft-b/model runs/sft-c/model
  align soup --out runs/gold --greedy --metric reward --eval measures.toml runs/*/model";

pub(crate) const MERGE: &str = "\
CONFIG.yml has `models` or `slices`, `merge_method`, perhaps `base_model`, `parameters`, `dtype`, `tokenizer_source`. Models are
folders, hub ids, `model@revision` or `model+adapter`. Values may be lists (from the first layer to the last) or depend on tensors'
names ({ filter: mlp, value: 0.5 }). What has no meaning is refused with its line. Memory is a few MB, whatever the size of the
models.
Methods: linear, slerp, nuslerp, multislerp, karcher, task_arithmetic, ties, dare_linear, dare_ties, della, della_linear,
breadcrumbs, breadcrumbs_ties, model_stock, sce, passthrough.

Examples:
  align merge ties.yml runs/merged
  align merge dare.yml runs/merged --seed 7 --max-shard-size 2GB
  align merge frankenmerge.yml --dry-run               what every tensor would be made of";

pub(crate) const GENERATE: &str = "\
Draws are keyed by seed, prompt and position: batch size and order change nothing. `logprobs` are of the raw distribution, as
`align logprobs` gives them, whatever top-k or top-p drew from. `finish_reason` is stop, stop_string or length.

Examples:
  align generate --model runs/sft/model --prompt 'Once upon a time' --temperature 0
  align generate --model runs/sft/model --data prompts.jsonl --json --seed 7 > completions.jsonl";

pub(crate) const CHAT: &str = "\
Reads a message a line; the dialogue goes through the model's chat template. /new starts afresh, /quit or Ctrl-D ends.

Examples:
  align chat --model runs/salsa/seed-0/model --temperature 0.7
  echo 'Who are you?' | align chat --model my-model";

pub(crate) const LOGPROBS: &str = "\
Each row has `text` (tokenised as it stands), `prompt` and `completion` (one after the other, as they stand), or `messages`
(through the chat template). Prints {\"token_ids\": […], \"logprobs\": [null, …]} a line, in nats.

Example:
  align logprobs --model my-model --data texts.jsonl --out logprobs.jsonl";

pub(crate) const FUSE: &str = "\
A fusion is a TOML file: `base` (the large model), `anchor` (the small one), `[experts]` (small tuned ones by name), and perhaps
`[weighing]`, `vocabulary` and `dtype`; paths are relative to the file. A member may be a table with `model`, `adapter`, `prefix` and
`device`. The file stands wherever a model is read: `align generate --model fusion.toml` too.

  base = \"large\"
  anchor = \"small\"
  [experts]
  facts = \"small-facts\"
  sums = { adapter = \"small-sums/adapter\" }
  [weighing]
  kind = \"dynamic\"                                     or \"static\" with weights = [1.0, 0.5]

Examples:
  align fuse generate fusion.toml --prompt 'Once upon a time' --temperature 0
  align fuse eval fusion.toml --data held_out.jsonl --exact-match
  align fuse explain fusion.toml --data held_out.jsonl --out weights";

pub(crate) const FUSE_GENERATE: &str = "\
As `align generate --model fusion.toml`; see there.

Example:
  align fuse generate fusion.toml --data prompts.jsonl --json --temperature 0 > completions.jsonl";

pub(crate) const FUSE_LOGPROBS: &str = "\
As `align logprobs --model fusion.toml`; see there. Weights depend on the text alone: an answer scores what it was drawn with.

Example:
  align fuse logprobs fusion.toml --data texts.jsonl --out logprobs.jsonl";

pub(crate) const FUSE_CHAT: &str = "\
As `align chat --model fusion.toml`: dialogues go through the base's template. /new starts afresh, /quit or Ctrl-D ends.

Example:
  align fuse chat fusion.toml --temperature 0.7";

pub(crate) const FUSE_EVAL: &str = "\
Prints one JSON object: rows, tokens, nll (nats a token of the completions, its end included) with its standard error over rows,
and exact_match if asked for. Prompts go through the base's template if it has one.

Example:
  align fuse eval fusion.toml --data held_out.jsonl --exact-match";

pub(crate) const FUSE_EXPLAIN: &str = "\
weights.jsonl has an answer a line: the experts' names, and of every token its text, the weights, whose shift was applied, how far
base and expert moved, the loss that is left, and whether the search hit its bound or was skipped. report.html draws them over the
text. Weights depend on the text alone: scoring an answer finds the weights it was drawn with.

Examples:
  align fuse explain fusion.toml --prompt '2 + 2 =' --completion ' 4' --out weights
  align fuse explain fusion.toml --data prompts.jsonl --temperature 0 --out weights";

pub(crate) const SCORE: &str = "\
Prints {\"score\": …} for `prompt` and `completion` or `messages`, and {\"chosen\": …, \"rejected\": …, \"margin\": …} for pairs,
with accuracy (a tie is half right) and mean margin at the end.

Example:
  align score --model runs/reward/model --data held-out-pairs.jsonl";

pub(crate) const FACTORS: &str = "\
Tables are CSV or Parquet. A model's reasons are what each factor (a question, with all columns it was encoded into) adds to its
scores; their mean absolute values are its importances.

Examples:
  align factors fit factors data.path=answers.csv data.schema.label=happiness
  align factors explain runs/factors/models/perceptron --data answers.csv --rows 10
  align factors compare runs/factors --data answers.csv";

pub(crate) const FACTORS_FIT: &str = "\
The recipe has `data` (path, schema, split), `[[model]]` (ridge, logistic, boosted_stumps, boosted_trees; linear,
factorization_machine, mlp, ft_transformer) and perhaps `[[guide]]`: knowledge that every network is guided by, beside itself
without. Wrong knowledge hurts: give `lambda` as a list and the validation rows choose, with 0 among the choices. Writes
models/NAME/ (model, encoder, schema, figures, importances with bands) and factors.json.

Examples:
  align recipes cp factors my-factors.toml
  align factors fit my-factors.toml data.path=answers.csv data.schema.label=happiness output_dir=runs/factors
  align factors fit my-factors.toml training.l2=0.1 --overwrite";

pub(crate) const FACTORS_EXPLAIN: &str = "\
Prints {\"row\": 1, \"score\": …, \"base\": …, \"attributions\": {FACTOR: …}} a line; base and attributions sum to the score, which
is checked. A table of importances with 95 % bands goes to standard error.

Example:
  align factors explain runs/factors/models/perceptron --data answers.csv --method permutation --pairs 16 --csv --out why.csv";

pub(crate) const FACTORS_COMPARE: &str = "\
Kendall's τ of every two models, the first factors they have in common, and the orders of factors that they must share because
their attributions differ by less than the gap.

Examples:
  align factors compare runs/factors --data answers.csv --out runs/compare.json
  align factors compare runs/a/models/perceptron runs/b/models/perceptron";

pub(crate) const BILEVEL: &str = "\
Gradients through a training without second derivatives: two copies of what is trained, of which one also minds what it is tuned for.

Examples:
  align bilevel clean clean.toml                       weights for preference pairs, and a reward model trained with them
  align bilevel tune tune.toml
  align bilevel design design.toml
  align bilevel bench bench.toml
  align run bilevel-bench                              all solvers, with claims as pass or fail";

pub(crate) const BILEVEL_CLEAN: &str = "\
The recipe has `model`, `data` (labelled pairs; give `held_out` to measure), and `trusted` (a file of pairs with right labels) or
`trusted_share`. Writes weights.jsonl (a line a pair), kept.jsonl (the rows that weigh `threshold` or more, or the `keep_share` that weighs most, as they were read),
cleaning.json, and model/, a reward model trained on the weighted pairs. `label_noise.share` flips labels first, to see whether they
are found; clean.jsonl and filtered.jsonl are then what an oracle and what confidence would keep.

Examples:
  align bilevel clean clean.toml trusted.path=checked.jsonl output_dir=runs/clean
  align bilevel clean clean.toml label_noise.share=0.25 cleaning.outer_steps=30
  align bilevel clean clean.toml --resume
  align score --model runs/clean/model --data pairs.jsonl";

pub(crate) const BILEVEL_TUNE: &str = "\
The recipe has `table.reference` (a row of probabilities for each state), `proxy` and `gold` (rewards in the same form, or files of
JSON with them), `starts` and `[tuning]`. Writes coefficient.json.

Example:
  align bilevel tune tune.toml tuning.sigma=0.001";

pub(crate) const BILEVEL_DESIGN: &str = "\
The recipe has `table.reference`, `beta`, and `[objective]` of kind demonstrations (`shares`), gold (`reward`) or preferences
(`preferred`). Writes reward_design.json.

Example:
  align bilevel design design.toml beta=0.2";

pub(crate) const BILEVEL_BENCH: &str = "\
The recipe has `problem`, `eps` (accuracies), `budget` (gradient calls) and `[[solver]]`, each with a `name` and `settings` of kind
double_loop, single_loop, f2sa, v_pbgd, bome, implicit, soba, saba, unrolled or finite_difference. Writes solvers.json: calls until
each accuracy, and how stationary x was on the way.

Example:
  align bilevel bench bench.toml problem=vector budget=5000";

pub(crate) const EVAL: &str = "\
The recipe has `arms` (name = model), `prompts`, and perhaps `reward`, `gold`, `anchors` and `[sampling]`. Everything is
computed from the weights, on the same prompts with the same draws; nothing comes from a training log.

Example:
  align eval compare.toml output_dir=runs/compare";

pub(crate) const BON: &str = "\
The recipe has `[sample]` with `model`, `n`, `reward`, `prompts` and perhaps `gold`, or `scores`, a file with a prompt a line:
{\"members\": [[…], …], \"gold\": […]}. The curve is unbiased for every n up to N, from the same N answers. Writes
best.jsonl (the chosen answers), scores.jsonl (every score), curves.csv (every n) and best_of_n.json.

Example:
  align bon bon.toml sample.n=256 output_dir=runs/bon";

pub(crate) const REPORT: &str = "\
Run folders are those of `align run` or of a single stage. Several stand in one report, side by side.

Example:
  align report runs/quickstart runs/stiffer --out both.html";

pub(crate) const DOCTOR: &str = "\
Tries devices; loads the model, its tokenizer and template; reads the first 1000 rows and encodes them. Exit code 1 if
something will not do.

Example:
  align doctor --model my-model --data pairs.jsonl.gz";

pub(crate) const PREVIEW: &str = "\
Tokens stand eight a line; those that are learnt are in brackets, stop tokens are marked.

Example:
  align data preview pairs.jsonl --model my-model --rows 2";
