//! The hub, played by a small server on loopback.
#![cfg(feature = "hub")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use align_data::{
    HfTokenizer, PreferenceRow, ReadOptions,
    hub::{HubKind, HubOptions, resolve},
    read_rows,
    synthetic::{World, WorldConfig},
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves files as the hub does; counts requests.
struct Hub {
    endpoint: String,
    requests: Arc<AtomicUsize>,
}

impl Hub {
    /// `files` by repository (`org/name`, or `datasets/org/name`) and name.
    fn serve(files: BTreeMap<(&'static str, String), Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = requests.clone();
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = answer(stream, &files); // a client that hangs up is no failure of the server
            }
        });
        Self { endpoint, requests }
    }

    fn options(&self, cache: &Path, offline: bool) -> HubOptions {
        HubOptions {
            endpoint: self.endpoint.clone(),
            cache: cache.to_path_buf(),
            offline,
            token: None,
            revision: "main".into(),
            progress: false,
        }
    }
}

fn answer(stream: TcpStream, files: &BTreeMap<(&'static str, String), Vec<u8>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut range = None;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if let Some(value) = header.to_lowercase().strip_prefix("range: bytes=") {
            range = value.trim().split_once('-').map(|(start, end)| (start.to_string(), end.to_string()));
        }
        if header.trim().is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_string();
    let mut stream = stream;
    if let Some(rest) = path.strip_prefix("/api/") {
        let repo = rest.split("/revision/").next().unwrap_or_default();
        let repo = repo.strip_prefix("models/").unwrap_or(repo);
        let names: Vec<_> = files
            .keys()
            .filter(|(owner, _)| *owner == repo)
            .map(|(_, name)| serde_json::json!({"rfilename": name}))
            .collect();
        if names.is_empty() {
            return write!(
                stream,
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        let body = serde_json::json!({"sha": COMMIT, "siblings": names}).to_string();
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
    let found = path.trim_start_matches('/').split_once("/resolve/").and_then(|(repo, rest)| {
        let name = rest.split_once('/')?.1.to_string();
        files.iter().find(|((owner, file), _)| *owner == repo && *file == name)
    });
    let Some(((_, name), bytes)) = found else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let (start, end) = range.unwrap_or_default();
    let start = start.parse().unwrap_or(0).min(bytes.len());
    let end = end.parse::<usize>().map_or(bytes.len(), |end| (end + 1).min(bytes.len()));
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\nContent-Length: {}\r\nETag: \"{}-{}\"\r\n\
         X-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
        end.saturating_sub(1),
        bytes.len(),
        end - start,
        name.replace(['/', '.'], "_"),
        bytes.len(),
    )?;
    stream.write_all(&bytes[start..end])
}

fn model_files() -> BTreeMap<(&'static str, String), Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    World::new(WorldConfig::default()).write_tokenizer(folder.path()).unwrap();
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    BTreeMap::from([
        (("org/model", "config.json".to_string()), b"{}".to_vec()),
        (("org/model", "tokenizer.json".to_string()), read("tokenizer.json")),
        (("org/model", "tokenizer_config.json".to_string()), read("tokenizer_config.json")),
        (("org/model", "model.safetensors".to_string()), vec![7; 100_000]),
        (("org/model", "original/model.safetensors".to_string()), vec![8; 10]),
        (("org/model", "pytorch_model.bin".to_string()), vec![9; 10]),
        (
            ("datasets/org/pairs", "data/train.jsonl".to_string()),
            br#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#.to_vec(),
        ),
        (("datasets/org/pairs", "README.md".to_string()), b"# pairs".to_vec()),
        (("org/readme", "README.md".to_string()), b"# nothing".to_vec()),
        (("org/evil", "../../../../evil.safetensors".to_string()), b"x".to_vec()),
    ])
}

#[test]
fn a_model_is_fetched_once_and_then_found_offline() {
    let hub = Hub::serve(model_files());
    let cache = tempfile::tempdir().unwrap();
    let folder = resolve("org/model", HubKind::Model, &hub.options(cache.path(), false)).unwrap();
    HfTokenizer::from_folder(&folder).unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), vec![7; 100_000]);
    assert!(!folder.join("pytorch_model.bin").exists() && !folder.join("original").exists());
    // The layout other programs share.
    assert_eq!(folder, cache.path().join("models--org--model/snapshots").join(COMMIT));
    let before = hub.requests.load(Ordering::SeqCst);
    let offline = resolve("org/model", HubKind::Model, &hub.options(cache.path(), true)).unwrap();
    assert_eq!((offline, hub.requests.load(Ordering::SeqCst)), (folder, before));
}

#[test]
fn data_is_fetched_and_read() {
    let hub = Hub::serve(model_files());
    let cache = tempfile::tempdir().unwrap();
    let folder = resolve("org/pairs", HubKind::Dataset, &hub.options(cache.path(), false)).unwrap();
    assert_eq!(read_rows::<PreferenceRow>(&folder, &ReadOptions::default()).unwrap().rows.len(), 1);
}

#[test]
fn a_path_that_exists_wins_over_the_hub() {
    let hub = Hub::serve(model_files());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    std::fs::create_dir(&path).unwrap();
    let found = resolve(path.to_str().unwrap(), HubKind::Model, &hub.options(folder.path(), false)).unwrap();
    assert_eq!((found, hub.requests.load(Ordering::SeqCst)), (path, 0));
}

#[test]
fn names_that_lead_nowhere_say_why() {
    let hub = Hub::serve(model_files());
    let cache = tempfile::tempdir().unwrap();
    let message = |name: &str, offline| {
        resolve(name, HubKind::Model, &hub.options(cache.path(), offline)).unwrap_err().to_string()
    };
    let found = message("./missing/folder", false);
    assert_eq!(
        found,
        "`./missing/folder` is neither a path that exists nor a hub name: expected a file, a folder or `org/name`"
    );
    let found = message("org/model", true);
    assert!(found.contains("not in the hub's cache") && found.contains("HF_HUB_OFFLINE"), "{found}");
    let found = message("org/readme", false);
    assert!(found.contains("holds no model (`config.json`") && found.ends_with("found README.md"), "{found}");
    let found = message("org/nowhere", false);
    assert!(
        found.starts_with(&format!(
            "cannot fetch `org/nowhere` (not a path that exists) from {}",
            hub.endpoint
        )),
        "{found}"
    );
    let found = message("org/evil", false);
    assert!(found.contains("leads out of its folder"), "{found}");
}
