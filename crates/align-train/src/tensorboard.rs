//! Event files for TensorBoard.
//!
//! Written here because no maintained crate does it: a file is a row of TFRecords (length, masked CRC-32C, bytes, masked
//! CRC-32C), each an `Event` of TensorFlow's `event.proto` of which four fields are used.
//!
//! # Source
//! <https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto>, `summary.proto`, and
//! `tensorboard/summary/writer/record_writer.py`.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use align_core::persist::PersistError;

use crate::error::TrainError;
use crate::metrics::Metrics;
use crate::observer::{Control, Observer};

/// Writes every metric as a scalar into `events.out.tfevents.<time>.align` of a folder.
///
/// A resumed run writes a new file; TensorBoard drops what older files say about later steps.
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl TensorBoard {
    /// Writes into this folder, which is made when the run starts.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), path: PathBuf::new(), file: None }
    }

    fn write(&mut self, event: &[u8]) -> Result<(), PersistError> {
        let file = self.file.as_mut().expect("a run starts its observers first");
        file.write_all(&record(event)).and_then(|()| file.flush()).map_err(PersistError::write(&self.path))
    }
}

impl Observer for TensorBoard {
    fn started(&mut self, step: u64, _: u64) -> Result<(), TrainError> {
        fs::create_dir_all(&self.folder).map_err(PersistError::write(&self.folder))?;
        // Nanoseconds: TensorBoard reads files in order of name, and a run may be resumed within a second.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("events.out.tfevents.{:010}.{:09}.align", now.as_secs(), now.subsec_nanos());
        self.path = self.folder.join(name);
        self.file = Some(BufWriter::new(File::create(&self.path).map_err(PersistError::write(&self.path))?));
        self.write(&event(now.as_secs_f64(), 0, &field_bytes(3, b"brain.Event:2")))?;
        if step > 0 {
            // SessionLog { status: START } tells the reader to forget what was written about steps from here on.
            let start = field_bytes(7, &field_varint(1, 1));
            self.write(&event(now.as_secs_f64(), step + 1, &start))?;
        }
        Ok(())
    }

    fn iterated(&mut self, step: u64, metrics: &Metrics) -> Result<Control, TrainError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let summary: Vec<u8> = metrics
            .iter()
            .flat_map(|(name, value)| {
                let mut entry = field_bytes(1, name.as_bytes());
                entry.extend(field_fixed32(2, (value as f32).to_le_bytes()));
                field_bytes(1, &entry)
            })
            .collect();
        self.write(&event(now.as_secs_f64(), step, &field_bytes(5, &summary)))?;
        Ok(Control::Continue)
    }
}

/// `Event { wall_time: 1, step: 2, … }`.
fn event(wall_time: f64, step: u64, rest: &[u8]) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(wall_time.to_le_bytes());
    event.extend(field_varint(2, step));
    event.extend(rest);
    event
}

/// Protobuf wire type 2: length and bytes.
fn field_bytes(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint(bytes.len() as u64, &mut field);
    field.extend(bytes);
    field
}

/// Protobuf wire type 0.
fn field_varint(number: u8, value: u64) -> Vec<u8> {
    let mut field = vec![number << 3];
    varint(value, &mut field);
    field
}

/// Protobuf wire type 5.
fn field_fixed32(number: u8, bytes: [u8; 4]) -> Vec<u8> {
    let mut field = vec![number << 3 | 5];
    field.extend(bytes);
    field
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// TFRecord framing.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

/// A checksum of data that may itself hold checksums: rotated by 15 bits and shifted by a constant.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli), bit by bit: a few hundred bytes an iteration need no table.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_the_published_answers() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
    }

    #[test]
    fn varints_use_seven_bits_a_byte() {
        // The example of the protobuf documentation: 150 is 96 01.
        assert_eq!(field_varint(1, 150), vec![0x08, 0x96, 0x01]);
    }
}
