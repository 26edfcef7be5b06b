//! A text as METEOR sees it.

use std::sync::LazyLock;

use nltk_porter::{Mode, PorterStemmer};

static PORTER: LazyLock<PorterStemmer> = LazyLock::new(|| PorterStemmer::new(Mode::Nltk));

/// The words of a text in lower case, and their stems where those are asked for.
#[derive(Clone)]
pub(super) struct Words {
    pub(super) written: Vec<String>,
    /// One a word, or none at all.
    pub(super) stems: Vec<String>,
}

impl Words {
    pub(super) fn new(text: &str, stem: bool) -> Self {
        let written: Vec<String> =
            text.split(separates).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
        let stems = if stem { written.iter().map(|word| PORTER.stem(word)).collect() } else { Vec::new() };
        Self { written, stems }
    }

    /// The words as a stage compares them.
    pub(super) fn form(&self, stems: bool) -> &[String] {
        if stems { &self.stems } else { &self.written }
    }

    pub(super) fn len(&self) -> usize {
        self.written.len()
    }
}

/// White space as Python's `str.split` has it: Unicode's, and the four separators of ASCII.
fn separates(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}
