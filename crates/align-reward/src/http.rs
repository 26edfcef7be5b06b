//! Asking a server until there is an answer worth reading.

use std::time::Duration;

use serde_json::Value;

/// Why a server's judgement could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// It could not be asked, or did not answer in time.
    #[error("{url} gave no answer in {attempts} attempts")]
    NoAnswer {
        /// The address.
        url: String,
        /// How often it was asked.
        attempts: u32,
        /// What went wrong the last time.
        #[source]
        source: Box<ureq::Error>,
    },
    /// It answered with an error.
    #[error("{url} answered with status {status}, expected 200; it says {body:?}")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
        /// The beginning of its answer.
        body: String,
    },
    /// Its answer does not hold what was looked for.
    #[error("{url} answered {found:?}, expected {expected}")]
    Form {
        /// The address.
        url: String,
        /// What was looked for.
        expected: String,
        /// The beginning of its answer.
        found: String,
    },
    /// The key that the server wants is not there.
    #[error("the environment variable `{variable}` is not set or empty, expected the key of {url}")]
    NoKey {
        /// The variable.
        variable: String,
        /// The address.
        url: String,
    },
    /// A question that could not show both answers.
    #[error("the judge's template has no `{placeholder}`, expected it where that text goes")]
    Template {
        /// What is missing.
        placeholder: &'static str,
    },
}

/// How long to wait for a server, and how often.
pub(crate) struct Patience {
    /// Seconds until a request is given up, above 0.
    pub(crate) timeout_s: f64,
    /// How often a request is made again.
    pub(crate) retries: u32,
    /// Seconds before the first repetition; each further wait is twice as long.
    pub(crate) wait_s: f64,
}

/// One address, asked with patience. The key appears in no message and cannot be printed.
pub(crate) struct Server {
    agent: ureq::Agent,
    url: String,
    patience: Patience,
    authorization: Option<String>,
}

impl Server {
    pub(crate) fn new(url: &str, patience: Patience) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(seconds(patience.timeout_s)))
            // A status is looked at, not thrown.
            .http_status_as_error(false)
            .build()
            .into();
        Self { agent, url: url.to_owned(), patience, authorization: None }
    }

    /// Sends the key that an environment variable holds.
    pub(crate) fn with_key_of(self, variable: &str) -> Result<Self, RemoteError> {
        let key = std::env::var(variable).unwrap_or_default();
        if key.trim().is_empty() {
            return Err(RemoteError::NoKey { variable: variable.to_owned(), url: self.url });
        }
        Ok(Self { authorization: Some(format!("Bearer {}", key.trim())), ..self })
    }

    /// The body of an answer with status 200. No answer, and the statuses 408, 429, 500 and above, are tried again.
    pub(crate) fn ask(&self, request: &Value) -> Result<String, RemoteError> {
        let url = &self.url;
        let mut wait = self.patience.wait_s;
        for attempt in 0.. {
            let is_last = attempt >= self.patience.retries;
            let mut post = self.agent.post(url);
            if let Some(authorization) = &self.authorization {
                post = post.header("Authorization", authorization);
            }
            match post.send_json(request).and_then(|mut answer| {
                let status = answer.status().as_u16();
                Ok((status, answer.body_mut().read_to_string()?))
            }) {
                Ok((200, body)) => return Ok(body),
                Ok((status, body)) => {
                    let may_pass = status == 408 || status == 429 || status >= 500;
                    if is_last || !may_pass {
                        return Err(RemoteError::Status { url: url.clone(), status, body: beginning(&body) });
                    }
                }
                Err(source) if is_last => {
                    let (url, attempts) = (url.clone(), attempt + 1);
                    return Err(RemoteError::NoAnswer { url, attempts, source: Box::new(source) });
                }
                Err(_) => {}
            }
            std::thread::sleep(seconds(wait));
            wait *= 2.0;
        }
        unreachable!("the last attempt returns")
    }

    /// The error of an answer that does not hold what was looked for.
    pub(crate) fn other_form(&self, expected: impl Into<String>, body: &str) -> RemoteError {
        RemoteError::Form { url: self.url.clone(), expected: expected.into(), found: beginning(body) }
    }
}

/// A time; thirty years and more are thirty, which every clock can still add.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.min(1e9))
}

/// Enough of an answer to recognise it.
fn beginning(body: &str) -> String {
    body.chars().take(200).collect()
}
