//! How two recipes differ.

use std::fmt;

use serde_json::Value;

/// One key whose value is not the same in two recipes.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The key, with dots: `ppo.beta`.
    pub key: String,
    /// What it was, if it was there.
    pub old: Option<Value>,
    /// What it is, if it is there.
    pub new: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "`{}` was {old} and is {new}", self.key),
            (Some(old), None) => write!(f, "`{}` was {old} and is gone", self.key),
            (None, _) => write!(f, "`{}` is new", self.key),
        }
    }
}

/// Every key that differs, in order; keys listed in `free`, and keys below them, may.
pub fn differences(old: &Value, new: &Value, free: &[String]) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", Some(old), Some(new), &mut found);
    found.retain(|difference| {
        let below = |key: &String| {
            difference.key == *key
                || difference.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'))
        };
        !free.iter().any(below)
    });
    found.sort_by(|a, b| a.key.cmp(&b.key));
    found
}

fn compare(key: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Difference>) {
    if let (Some(Value::Object(old)), Some(Value::Object(new))) = (old, new) {
        let missing = new.keys().filter(|name| !old.contains_key(*name));
        for name in old.keys().chain(missing) {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            compare(&key, old.get(name), new.get(name), found);
        }
    } else if old != new {
        found.push(Difference { key: key.to_owned(), old: old.cloned(), new: new.cloned() });
    }
}

/// All of them in one line.
pub(crate) fn listed(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ")
}
