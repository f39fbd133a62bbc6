//! Without the feature `lz4`, a value compressed with it is an error, hence a miss.

use crate::error::BoxError;

pub(super) fn compress(_packed: &[u8], _out: &mut Vec<u8>) -> Result<(), BoxError> {
    Err("the feature `lz4` is off".into())
}

pub(super) fn decompress(_body: &[u8], _max_bytes: usize) -> Result<Vec<u8>, BoxError> {
    Err("compressed with lz4, and the feature `lz4` is off".into())
}
