//! Names of models and data: a path, or `org/name` on the Hugging Face hub.
//!
//! A path that exists always wins. A hub name is looked for in the hub's cache (`HF_HOME`, laid out as Python's
//! `huggingface_hub` lays it out, so both share files) and, unless `HF_HUB_OFFLINE` is set, fetched from `HF_ENDPOINT`
//! with the token of `HF_TOKEN` or of the cache.

use std::path::{Component, Path, PathBuf};

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{ApiBuilder, ApiError, ApiRepo},
};

/// What a hub name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubKind {
    /// A model: configuration, tokenizer, template, weights as safetensors.
    Model,
    /// Data: JSON Lines, JSON and Parquet, perhaps compressed.
    Dataset,
}

/// Where and how to look.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// The hub's address.
    pub endpoint: String,
    /// The cache's folder (`…/hub`).
    pub cache: PathBuf,
    /// Look only in the cache.
    pub offline: bool,
    /// A token for what is not public.
    pub token: Option<String>,
    /// A branch, tag or commit.
    pub revision: String,
    /// Draw progress bars.
    pub progress: bool,
}

impl HubOptions {
    /// As `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_OFFLINE` and `HF_TOKEN` say.
    pub fn from_env() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let yes = |value: String| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        let cache = Cache::from_env();
        Self {
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string()),
            cache: set("HF_HUB_CACHE").map_or_else(|| cache.path().clone(), PathBuf::from),
            offline: set("HF_HUB_OFFLINE").is_some_and(yes),
            token: set("HF_TOKEN").or_else(|| cache.token()),
            revision: "main".to_string(),
            progress: false,
        }
    }
}

/// A name that leads nowhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// It is no path, and cannot be a hub name.
    #[error("`{name}` is neither a path that exists nor a hub name: expected a file, a folder or `org/name`")]
    Name {
        /// What was given.
        name: String,
    },
    /// It is not in the cache, and fetching is switched off.
    #[error(
        "`{name}` is not a path that exists and not in the hub's cache {}; HF_HUB_OFFLINE is set, so it was not fetched",
        cache.display()
    )]
    Offline {
        /// What was given.
        name: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The hub has nothing of the kind under that name.
    #[error("`{name}` on {endpoint} holds no {expected}; found {found}")]
    NothingUseful {
        /// What was given.
        name: String,
        /// The hub.
        endpoint: String,
        /// What was looked for.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A name of a file in the hub's answer would leave the cache.
    #[error("`{name}` on {endpoint} lists the file {file:?}, which leads out of its folder; refused")]
    Escape {
        /// What was given.
        name: String,
        /// The hub.
        endpoint: String,
        /// The file's name.
        file: String,
    },
    /// The hub could not be asked.
    #[error("cannot fetch `{name}` (not a path that exists) from {endpoint}: {source}")]
    Fetch {
        /// What was given.
        name: String,
        /// The hub.
        endpoint: String,
        /// Why.
        source: Box<ApiError>,
    },
}

/// The path of a model's folder, or of a data file or folder.
///
/// # Errors
/// When the name is neither a path nor a hub name, or fetching fails.
pub fn resolve(name: &str, kind: HubKind, options: &HubOptions) -> Result<PathBuf, HubError> {
    let path = Path::new(name);
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    if !is_hub_name(name) {
        return Err(HubError::Name { name: name.to_string() });
    }
    let kind_of_repo = match kind {
        HubKind::Model => RepoType::Model,
        HubKind::Dataset => RepoType::Dataset,
    };
    let repo = Repo::with_revision(name.to_string(), kind_of_repo, options.revision.clone());
    if options.offline {
        return cached(name, kind, &repo, options);
    }
    let fetch = |source| HubError::Fetch {
        name: name.to_string(),
        endpoint: options.endpoint.clone(),
        source: Box::new(source),
    };
    let api = ApiBuilder::from_cache(Cache::new(options.cache.clone()))
        .with_endpoint(options.endpoint.clone())
        .with_token(options.token.clone())
        .with_progress(options.progress)
        .build()
        .map_err(fetch)?;
    download(name, kind, &api.repo(repo), options, fetch)
}

fn download(
    name: &str,
    kind: HubKind,
    repo: &ApiRepo,
    options: &HubOptions,
    fetch: impl Fn(ApiError) -> HubError,
) -> Result<PathBuf, HubError> {
    let listed: Vec<String> =
        repo.info().map_err(&fetch)?.siblings.into_iter().map(|file| file.rfilename).collect();
    let wanted: Vec<&String> = listed.iter().filter(|file| is_wanted(file, kind)).collect();
    if wanted.is_empty() {
        let mut found = listed.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        if listed.len() > 8 {
            found.push_str(&format!(" and {} more files", listed.len() - 8));
        }
        return Err(HubError::NothingUseful {
            name: name.to_string(),
            endpoint: options.endpoint.clone(),
            expected: match kind {
                HubKind::Model => "model (`config.json`, `tokenizer.json`, `*.safetensors`)",
                HubKind::Dataset => "data (`*.jsonl`, `*.json`, `*.parquet`)",
            },
            found,
        });
    }
    let mut folder = None;
    for file in wanted {
        if !Path::new(file).components().all(|part| matches!(part, Component::Normal(_))) {
            let (name, endpoint) = (name.to_string(), options.endpoint.clone());
            return Err(HubError::Escape { name, endpoint, file: file.clone() });
        }
        let path = repo.get(file).map_err(&fetch)?;
        // The snapshot's folder is as many steps up as the file's name has parts.
        folder = path.ancestors().nth(Path::new(file).components().count()).map(Path::to_path_buf);
    }
    folder.map(|folder| data_folder(folder, kind)).ok_or_else(|| HubError::Name { name: name.to_string() })
}

/// The newest snapshot in the cache, if it holds anything useful.
fn cached(name: &str, kind: HubKind, repo: &Repo, options: &HubOptions) -> Result<PathBuf, HubError> {
    let folder = options.cache.join(repo.folder_name());
    let commit = std::fs::read_to_string(folder.join("refs").join(&options.revision))
        .map_or_else(|_| options.revision.clone(), |commit| commit.trim().to_string());
    let snapshot = folder.join("snapshots").join(commit);
    match snapshot.is_dir() {
        true => Ok(data_folder(snapshot, kind)),
        false => Err(HubError::Offline { name: name.to_string(), cache: options.cache.clone() }),
    }
}

/// Data usually lies in a folder `data` of its repository.
fn data_folder(snapshot: PathBuf, kind: HubKind) -> PathBuf {
    let inner = snapshot.join("data");
    match kind == HubKind::Dataset && inner.is_dir() {
        true => inner,
        false => snapshot,
    }
}

fn is_wanted(file: &str, kind: HubKind) -> bool {
    const MODEL: [&str; 8] = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "model.safetensors.index.json",
        "adapter_config.json",
    ];
    match kind {
        // Weights of other formats lie in sub-folders of some models (`original/`, `onnx/`).
        HubKind::Model => {
            MODEL.contains(&file)
                || (file.ends_with(".safetensors") && (!file.contains('/') || file.contains("..")))
        }
        HubKind::Dataset => {
            let plain = file.strip_suffix(".gz").or(file.strip_suffix(".zst")).unwrap_or(file);
            let data =
                [".jsonl", ".ndjson", ".json", ".parquet"].iter().any(|ending| plain.ends_with(ending));
            data && !matches!(plain, "dataset_infos.json" | "dataset_info.json")
        }
    }
}

/// `org/name`, or an old model's bare `name`: letters, digits, `-`, `_`, `.`.
fn is_hub_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
    };
    // A bare name with an ending is a misspelt file.
    match name.split_once('/') {
        Some((organisation, repository)) => part(organisation) && part(repository),
        None => part(name) && !name.contains('.'),
    }
}
