//! A growing buffer that leaves no copies behind: a plain vector that grows frees its old memory unwiped.

use bytes::Bytes;
use std::io;
use zeroize::Zeroizing;

/// Bytes on their way in or out, wiped when dropped and when they move to a larger buffer.
pub(crate) struct WipedBuffer {
    bytes: Zeroizing<Vec<u8>>,
    limit: usize,
}

/// The buffer's limit was reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl WipedBuffer {
    /// An empty buffer with room for `expected` bytes that never holds more than `limit`.
    pub(crate) fn new(expected: usize, limit: usize) -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(expected.min(limit))), limit }
    }

    pub(crate) fn extend(&mut self, more: &[u8]) -> Result<(), Full> {
        let length = self.bytes.len() + more.len();
        if length > self.limit {
            return Err(Full);
        }
        if length > self.bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(length.max(2 * self.bytes.capacity()).max(1024)));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes for hyper; they are wiped when its last handle is dropped.
    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self.bytes)
    }
}

impl io::Write for WipedBuffer {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        self.extend(more).map_err(|Full| io::Error::from(io::ErrorKind::FileTooLarge))?;
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_up_to_its_limit_and_not_past_it() {
        let mut buffer = WipedBuffer::new(0, 5_000);
        for _ in 0..50 {
            buffer.extend(&[7; 100]).unwrap();
        }
        assert_eq!(buffer.extend(&[7]), Err(Full));
        assert_eq!(buffer.as_slice(), &[7; 5_000]);
        assert_eq!(buffer.into_bytes().len(), 5_000);
    }
}
