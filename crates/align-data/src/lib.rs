//! Preferences, prompts and dialogues: files, templates, tokenizers, batches and a synthetic world.
