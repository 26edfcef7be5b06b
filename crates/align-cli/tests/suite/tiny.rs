//! Runs the command, and keeps one small finished run for all tests.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub(crate) const ALIGN: &str = env!("CARGO_BIN_EXE_align");

/// The recipe of the finished run.
pub(crate) const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/tiny.toml");

/// What a command said and how it ended.
pub(crate) struct Ended {
    /// The exit code; none after a signal.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Ended {
    /// Its lines of standard output as JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// Fails unless the command ended with 1 and named all of this on standard error, without a panic.
    #[track_caller]
    pub(crate) fn refuses(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(1), "{}", self.err);
        self.says(parts);
        assert!(self.err.contains("error: ") && !self.err.contains("panicked"), "{}", self.err);
    }

    /// Fails unless all of this stands on standard error.
    #[track_caller]
    pub(crate) fn says(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.err.contains(part), "expected `{part}` in:\n{}", self.err);
        }
    }
}

/// A command that never asks the network.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(ALIGN);
    command.args(args).env("HF_HUB_OFFLINE", "1").stdin(Stdio::null());
    command
}

/// Runs the command to its end, whatever that is.
pub(crate) fn align(args: &[&str]) -> Ended {
    ended(command(args))
}

/// Runs the command to a good end.
#[track_caller]
pub(crate) fn works(args: &[&str]) -> Ended {
    let ended = align(args);
    assert_eq!(ended.code, Some(0), "{args:?}:\n{}", ended.err);
    ended
}

/// Waits for a prepared command.
pub(crate) fn ended(mut command: Command) -> Ended {
    let output = command.output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The finished run of [`RECIPE`], made once for a build of the binary and shared by processes.
pub(crate) fn run() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("align-cli");
        fs::create_dir_all(&home).unwrap();
        let lock = File::create(home.join("lock")).unwrap();
        lock.lock().unwrap();
        let (run, stamp) = (home.join("tiny"), home.join("stamp"));
        let built = fs::metadata(ALIGN).unwrap().modified().unwrap();
        let age = built.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        let expected = format!("{ALIGN} {age}\n{}", fs::read_to_string(RECIPE).unwrap());
        if fs::read_to_string(&stamp).ok().as_ref() != Some(&expected) {
            let _ = fs::remove_dir_all(&run);
            works(&["run", RECIPE, &format!("output_dir={}", run.display())]);
            fs::write(&stamp, expected).unwrap();
        }
        run
    })
}

/// A path inside the finished run, as text.
pub(crate) fn at(path: &str) -> String {
    run().join(path).display().to_string()
}

/// A fresh folder.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes rows to a file in a folder and gives its path.
pub(crate) fn rows(folder: &TempDir, name: &str, rows: &[Value]) -> String {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    text(folder, name, &lines)
}

/// Writes text to a file in a folder and gives its path.
pub(crate) fn text(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A copy of a model of the finished run that may be damaged.
pub(crate) fn copy_of(model: &str) -> TempDir {
    let copy = folder();
    for entry in fs::read_dir(run().join(model)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// The path of a folder, as text.
pub(crate) fn path(folder: &TempDir) -> &str {
    folder.path().to_str().unwrap()
}

/// Changes a JSON file.
pub(crate) fn change(path: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let mut value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, Value::Object(value).to_string()).unwrap();
}

/// SHA-256 of every file below a folder.
pub(crate) fn hashes(folder: &Path) -> BTreeMap<String, String> {
    let hashed = align_train::hash_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    hashed.into_iter().map(|(name, hash)| (name, hash.sha256)).collect()
}
