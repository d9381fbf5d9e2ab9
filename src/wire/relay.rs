//! The envelope that a node sends to the relay. It names the receiver of a frame.
//!
//! An envelope is one byte with the length of the receiver's id in bytes (0 for everyone else in
//! the room), the id, and the frame. The relay passes on the frame alone and does not look into it.

/// The longest id of a node, in bytes.
pub const MAX_ID: usize = 255;
/// The largest envelope, in bytes: that of the largest frame and the longest id.
pub const MAX_ENVELOPE: usize = super::MAX_FRAME + 1 + MAX_ID;

/// Why an envelope cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It ends before the receiver's id does, or has no frame.
    #[error("the envelope ends too early")]
    Short,
    /// The receiver's id is not UTF-8.
    #[error("the receiver's id is not UTF-8")]
    Id,
}

/// Puts a frame into an envelope. `to` is the receiver's id; `None` stands for everyone else in the
/// room.
///
/// # Panics
/// When the id is longer than [`MAX_ID`]. Ids are checked where they come in, so that is a bug.
pub fn seal(to: Option<&str>, frame: &[u8]) -> Vec<u8> {
    let to = to.unwrap_or_default();
    let length = u8::try_from(to.len()).expect("ids are checked where they come in");
    let mut envelope = Vec::with_capacity(1 + to.len() + frame.len());
    envelope.push(length);
    envelope.extend_from_slice(to.as_bytes());
    envelope.extend_from_slice(frame);
    envelope
}

/// Opens an envelope: the receiver, `None` for everyone, and the frame.
///
/// # Errors
/// When the bytes are not an envelope.
pub fn open(envelope: &[u8]) -> Result<(Option<&str>, &[u8]), EnvelopeError> {
    let (length, rest) = envelope.split_first().ok_or(EnvelopeError::Short)?;
    let (to, frame) = rest.split_at_checked(usize::from(*length)).ok_or(EnvelopeError::Short)?;
    if frame.is_empty() {
        return Err(EnvelopeError::Short);
    }
    let to = std::str::from_utf8(to).map_err(|_| EnvelopeError::Id)?;
    Ok(((!to.is_empty()).then_some(to), frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_opens_as_it_was_sealed() {
        assert_eq!(open(&seal(None, b"frame")), Ok((None, b"frame".as_slice())));
        assert_eq!(open(&seal(Some("näme"), b"f")), Ok((Some("näme"), b"f".as_slice())));
    }

    #[test]
    fn bytes_that_are_not_an_envelope_are_refused() {
        assert_eq!(open(b""), Err(EnvelopeError::Short));
        assert_eq!(open(b"\x00"), Err(EnvelopeError::Short));
        assert_eq!(open(b"\x05abc"), Err(EnvelopeError::Short));
        assert_eq!(open(b"\x02\xff\xffx"), Err(EnvelopeError::Id));
    }
}
