//! Strings as the wire has them: for each element a little-endian u32 with its length, then its bytes.

use adjoin_shm::{Payload, PayloadMut};

/// Finds the elements in a private copy of a payload.
///
/// # Errors
/// What is wrong with the payload.
pub fn split(payload: &[u8], count: usize) -> Result<Vec<&[u8]>, String> {
    // Every element takes 4 bytes at least, so a count that is too large reserves nothing.
    if payload.len() / 4 < count {
        let byte_size = payload.len();
        return Err(format!(
            "{byte_size} bytes are too few for {count} strings with their lengths"
        ));
    }
    let mut elements = Vec::with_capacity(count);
    let mut rest = payload;
    for index in 0..count {
        let cut = rest.split_first_chunk().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        let Some((element, after)) = cut else {
            return Err(format!(
                "string {index} reaches past the end of the payload"
            ));
        };
        elements.push(element);
        rest = after;
    }
    if !rest.is_empty() {
        let count = rest.len();
        return Err(format!("{count} bytes are left behind the last string"));
    }
    Ok(elements)
}

/// The payload for strings that lie end to end in `contents` and begin at `starts`.
///
/// # Errors
/// If a string is longer than the wire's lengths reach, or the engine's positions are no positions.
pub fn join(contents: &[u8], starts: &[usize]) -> Result<Vec<u8>, String> {
    let mut payload = Vec::with_capacity(contents.len() + 4 * starts.len());
    let ends = starts.iter().skip(1).copied().chain([contents.len()]);
    for (&start, end) in starts.iter().zip(ends) {
        let element = contents.get(start..end);
        push(
            &mut payload,
            element.ok_or("the engine gave strings outside of its buffer")?,
        )?;
    }
    Ok(payload)
}

/// Appends one string to a payload.
///
/// # Errors
/// If it is longer than the wire's lengths reach.
pub fn push(payload: &mut Vec<u8>, element: &[u8]) -> Result<(), String> {
    let length = u32::try_from(element.len()).map_err(|_| "a string has 4 GiB or more")?;
    payload.extend(length.to_le_bytes());
    payload.extend(element);
    Ok(())
}

/// Where the `count` strings end that begin at `at`, read without a copy of them; `None` if they reach past the
/// payload. Of a payload that changes meanwhile this says nothing.
#[must_use]
pub fn end(payload: Payload<'_>, at: usize, count: usize) -> Option<usize> {
    let mut at = at;
    for _ in 0..count {
        let mut length = [0; 4];
        let bytes = payload.part(at, length.len())?;
        bytes.copy_to(&mut PayloadMut::from_slice(&mut length));
        at += length.len();
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
        at += payload.part(at, length)?.byte_size();
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_survive_the_way_in_and_out() {
        let payload = join(b"ab\0c", &[0, 2, 2]).unwrap();
        assert_eq!(payload, b"\x02\0\0\0ab\0\0\0\0\x02\0\0\0\0c");
        let elements = split(&payload, 3).unwrap();
        assert_eq!(elements, [b"ab".as_slice(), b"", b"\0c"]);
        assert_eq!(split(b"", 0).unwrap(), Vec::<&[u8]>::new());
        assert_eq!(join(b"", &[]).unwrap(), b"");
    }

    #[test]
    fn lying_lengths_are_refused() {
        split(b"", 1).unwrap_err();
        split(b"\x01\0\0\0", 1).unwrap_err();
        split(b"\xff\xff\xff\xff", 1).unwrap_err();
        split(b"\0\0\0\0", usize::MAX).unwrap_err();
        split(b"\0\0\0\0!", 1).unwrap_err();
        split(b"!", 0).unwrap_err();
    }

    #[test]
    fn ends_are_found_without_a_copy() {
        let bytes = join(b"ab\0c", &[0, 2, 2]).unwrap();
        let payload = Payload::from_slice(&bytes);
        assert_eq!(end(payload, 0, 0), Some(0));
        assert_eq!(end(payload, 0, 1), Some(6));
        assert_eq!(end(payload, 6, 2), Some(bytes.len()));
        assert_eq!(end(payload, 0, 4), None);
        assert_eq!(end(payload, usize::MAX, 1), None);
        assert_eq!(end(Payload::from_slice(b"\xff\xff\xff\xff"), 0, 1), None);
    }

    #[test]
    fn positions_outside_of_the_contents_are_refused() {
        join(b"abc", &[2, 1]).unwrap_err();
        join(b"abc", &[4]).unwrap_err();
    }
}
