//! The span that a caller says a request belongs to: the header `traceparent` of W3C Trace Context.

/// A span of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its trace; never all zeros.
    pub trace_id: [u8; 16],
    /// The span; never all zeros.
    pub span_id: [u8; 8],
    /// Whether its trace is taken.
    pub is_sampled: bool,
}

impl Parent {
    /// Reads `VERSION-TRACE-SPAN-FLAGS`, all in lower-case hexadecimal digits. `None` for what it cannot be.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let [version] = hex(parts.next()?)?;
        let trace_id = hex(parts.next()?)?;
        let span_id = hex(parts.next()?)?;
        let [flags] = hex(parts.next()?)?;
        // Only versions to come may have more behind it.
        let is_whole = version > 0 || parts.next().is_none();
        let is_valid = version != 0xff && is_whole && trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(Self {
            trace_id,
            span_id,
            is_sampled: flags & 1 != 0,
        })
    }
}

fn hex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let text = text.as_bytes();
    if text.len() != 2 * BYTES {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_read_and_what_is_wrong_is_none() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = Parent::parse(good).unwrap();
        assert_eq!((parent.trace_id[0], parent.trace_id[15]), (0x0a, 0x9c));
        assert_eq!((parent.span_id[0], parent.span_id[7]), (0xb7, 0x31));
        assert!(parent.is_sampled);
        assert!(Parent::parse(&good.replace("00-", "01-")).is_some());
        assert!(Parent::parse(&(good.replace("00-", "01-") + "-more")).is_some());
        let unsampled = good.replace("-01", "-02");
        assert!(!Parent::parse(&unsampled).unwrap().is_sampled);
        for wrong in [
            "",
            "00",
            "00-",
            &good.replace("00-", "ff-"),
            &good.replace('a', "A"),
            &good.replace("b7", "b"),
            &good.replace("0af7", "0ag7"),
            &(good.to_owned() + "-more"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319\u{e9}-b7ad6b7169203331-01",
        ] {
            assert_eq!(Parent::parse(wrong), None, "{wrong:?}");
        }
    }
}
