//! A disk that fills up cannot be had portably; here it is a sink that says so.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::{Dtype, tensor::TensorView};

use super::stream::Sink;
use super::*;

/// Writes to a file until `left` bytes are used up.
pub(crate) struct FullDisk {
    pub(crate) file: File,
    pub(crate) left: Arc<AtomicU64>,
}

impl Sink for FullDisk {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let room = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes.len() as u64));
        if room.is_err() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Sink::write_at(&self.file, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Sink::sync(&self.file)
    }
}

fn checkpoint(path: &Path, value: f32) {
    fs::create_dir(path).unwrap();
    fs::write(path.join("config.json"), r#"{"model_type":"llama"}"#).unwrap();
    let bytes: Vec<u8> = (0..200_000).flat_map(|_| value.to_le_bytes()).collect();
    let tensor = TensorView::new(Dtype::F32, vec![200, 1000], &bytes).unwrap();
    let tensors = BTreeMap::from([("w".to_owned(), tensor)]);
    safetensors::serialize_to_file(tensors, None, &path.join("model.safetensors")).unwrap();
}

#[test]
fn a_full_disk_leaves_the_old_checkpoint_and_nothing_half_written() {
    let root = tempfile::tempdir().unwrap();
    let [a, b, out] = ["a", "b", "out"].map(|name| root.path().join(name));
    checkpoint(&a, 1.0);
    checkpoint(&b, 2.0);
    checkpoint(&out, 9.0);
    let before = fs::read(out.join("model.safetensors")).unwrap();

    // 800 kB of tensor: the disk is full within it; then within the header, which is written last.
    for room in [300_000, 800_100] {
        let left = Arc::new(AtomicU64::new(room));
        let create = move |path: &Path| -> io::Result<Box<dyn Sink>> {
            Ok(Box::new(FullDisk { file: File::create(path)?, left: left.clone() }))
        };
        let options = SoupOptions { overwrite: true, ..SoupOptions::default() };
        let weights = Weights::uniform(2).unwrap();
        let error = soup_with(
            &[&a, &b].map(Source::from),
            &weights,
            &options,
            &out,
            &|_| ControlFlow::Continue(()),
            &create,
        )
        .unwrap_err();

        let SoupError::Write { path, source } = &error else { panic!("{error}") };
        assert!(path.ends_with("model.safetensors"), "{error}");
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(out.join("model.safetensors")).unwrap(), before);
        let mut left: Vec<_> =
            fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a", "b", "out"]);
    }
}
