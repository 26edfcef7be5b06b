//! How a configuration names a model.

use std::fmt;

use super::config_error::{ConfigError, Problem};
use super::document::{At, Content};

/// A folder or hub id, perhaps at a revision.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelPath {
    /// A folder, a hub id, or a name the caller knows, such as `@stage`.
    pub path: String,
    /// A branch, tag or commit of a hub repository.
    pub revision: Option<String>,
}

/// A model as a configuration names it: `model`, `model@revision` or `model+adapter`.
///
/// # Source
/// mergekit's `ModelReference`, <https://github.com/arcee-ai/mergekit>.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelReference {
    /// The model.
    pub model: ModelPath,
    /// An adapter that is merged into it.
    pub adapter: Option<ModelPath>,
}

impl ModelPath {
    /// `path` or `path@revision`. A leading `@` is part of the name: there is no path before it.
    fn parse(text: &str) -> Option<Self> {
        let (sign, rest) = match text.strip_prefix('@') {
            Some(rest) => ("@", rest),
            None => ("", text),
        };
        let mut parts = rest.split('@');
        let path = parts.next().filter(|path| !path.is_empty())?;
        let revision = parts.next().map(str::to_owned);
        if parts.next().is_some() || revision.as_deref() == Some("") {
            return None;
        }
        Some(Self { path: format!("{sign}{path}"), revision })
    }

    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        match at.content() {
            Content::Map(_) => {
                at.only(&["path", "revision"])?;
                let revision = at.get("revision")?.map(|revision| revision.text().map(str::to_owned));
                Ok(Self { path: at.require("path")?.text()?.to_owned(), revision: revision.transpose()? })
            }
            _ => {
                let text = at.text()?;
                Self::parse(text).ok_or_else(|| at.refuse(Problem::Reference { found: text.to_owned() }))
            }
        }
    }
}

impl ModelReference {
    /// Reads a text, or a map with `model` and `lora`.
    pub(crate) fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        if let Content::Map(_) = at.content() {
            at.only(&["model", "lora", "override_architecture"])?;
            if let Some(architecture) = at.get("override_architecture")? {
                let instead = "models of one family are merged as they are";
                return Err(architecture
                    .refuse(Problem::Unsupported { what: "override_architecture".to_owned(), instead }));
            }
            let adapter = at.get("lora")?.map(|lora| ModelPath::read(&lora)).transpose()?;
            return Ok(Self { model: ModelPath::read(&at.require("model")?)?, adapter });
        }
        let text = at.text()?;
        let refused = || at.refuse(Problem::Reference { found: text.to_owned() });
        let mut parts = text.split('+');
        let model = parts.next().and_then(ModelPath::parse).ok_or_else(refused)?;
        let adapter = parts.next().map(|part| ModelPath::parse(part).ok_or_else(refused)).transpose()?;
        match parts.next() {
            Some(_) => Err(refused()),
            None => Ok(Self { model, adapter }),
        }
    }
}

impl fmt::Display for ModelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ModelReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.model.fmt(f)?;
        match &self.adapter {
            Some(adapter) => write!(f, "+{adapter}"),
            None => Ok(()),
        }
    }
}
