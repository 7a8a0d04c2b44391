//! The text format as the parser takes it: a pass over the text that keeps every place findable.
//!
//! The library's parser differs from the format's definition in one thing, and takes stack in two: it wants a colon before
//! the bracket of a list of messages, which the format leaves out and nearly every `config.pbtxt` does; each comment that
//! follows another takes a call, as does each expansion of `Any` in another.

use crate::error::ConfigError;

/// Deepest nesting of messages. The schema's own ends at 6.
pub(crate) const NESTING_MAX: usize = 16;

/// A text without comments, with a colon before each list.
pub(crate) struct Plain {
    /// The text; each comment is as many spaces.
    pub(crate) text: String,
    /// Where in it colons were put in, ascending.
    colons: Vec<usize>,
}

impl Plain {
    /// Rewrites `source`. Where that is malformed, the parser stops at that place, so what this makes of the rest does not
    /// matter.
    ///
    /// # Errors
    /// [`ConfigError::TooDeep`].
    pub(crate) fn new(source: &str) -> Result<Self, ConfigError> {
        let mut plain = Self {
            text: String::with_capacity(source.len()),
            colons: Vec::new(),
        };
        let mut depth = 0_usize;
        let mut rest = source;
        while let Some(at) = rest.find(['#', '"', '\'', '{', '<', '}', '>', '[']) {
            plain.text.push_str(&rest[..at]);
            let found = &rest[at..];
            let byte_size = match found.as_bytes()[0] {
                b'#' => comment_bytes(found),
                b'"' | b'\'' => string_bytes(found),
                _ => 1,
            };
            let (token, behind) = found.split_at(byte_size);
            match found.as_bytes()[0] {
                b'#' => plain.text.extend(std::iter::repeat_n(' ', byte_size)),
                b'[' if plain.ends_with_name() && opens_message(behind) => {
                    plain.colons.push(plain.text.len());
                    plain.text.push_str(":[");
                }
                _ => plain.text.push_str(token),
            }
            match found.as_bytes()[0] {
                b'{' | b'<' => depth += 1,
                b'}' | b'>' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > NESTING_MAX {
                let (line, _) = place(source, source.len() - found.len());
                return Err(ConfigError::TooDeep { line });
            }
            rest = behind;
        }
        plain.text.push_str(rest);
        Ok(plain)
    }

    /// The place in the source of a place in this text.
    pub(crate) fn source_offset(&self, offset: usize) -> usize {
        offset - self.colons.partition_point(|&colon| colon < offset)
    }

    /// Whether what stands here could be a field's name.
    fn ends_with_name(&self) -> bool {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        self.text.trim_ascii_end().ends_with(is_word)
    }
}

/// Line and column, both from 1, of a place in a text.
pub(crate) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    (line, before[start..].chars().count() + 1)
}

/// Whether the next thing, comments aside, opens a message.
fn opens_message(mut behind: &str) -> bool {
    loop {
        behind = behind.trim_ascii_start();
        match behind.as_bytes().first() {
            Some(b'#') => behind = &behind[comment_bytes(behind)..],
            other => return matches!(other, Some(b'{' | b'<')),
        }
    }
}

/// Bytes of a comment, without the end of its line.
fn comment_bytes(comment: &str) -> usize {
    comment.find('\n').unwrap_or(comment.len())
}

/// Bytes of a string literal with its quotes. A line break ends a malformed one.
fn string_bytes(literal: &str) -> usize {
    let quote = literal.as_bytes()[0];
    let mut bytes = literal.bytes().enumerate().skip(1);
    while let Some((index, byte)) = bytes.next() {
        match byte {
            // What is escaped is a byte of ASCII, or malformed.
            b'\\' => _ = bytes.next(),
            b'\n' => return index,
            _ if byte == quote => return index + 1,
            _ => {}
        }
    }
    literal.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_messages_get_a_colon_and_comments_go() {
        for (source, text) in [
            ("input [ {} ]", "input :[ {} ]"),
            ("input[<>]", "input:[<>]"),
            ("input # [{\n [ # {\n { } ]", "input     \n :[    \n { } ]"),
            ("input: [ {} ]", "input: [ {} ]"),
            ("dims [ 1 ]", "dims [ 1 ]"),
            ("name: \"a [{\\\"[{\" '# [{'", "name: \"a [{\\\"[{\" '# [{'"),
            ("name: \"x\"\n[{", "name: \"x\"\n[{"),
            ("\\\"\u{e9}\\\u{e9}", "\\\"\u{e9}\\\u{e9}"),
        ] {
            assert_eq!(Plain::new(source).unwrap().text, text, "{source:?}");
        }
    }

    #[test]
    fn places_are_those_of_the_source() {
        let source = "input [{ }]\noutput [{ bad: 1 }]";
        let plain = Plain::new(source).unwrap();
        let offset = plain.text.find("bad").unwrap();
        assert_eq!(plain.source_offset(offset), source.find("bad").unwrap());
        assert_eq!(place(source, plain.source_offset(offset)), (2, 11));
        assert_eq!(place("\u{e9}x", 2), (1, 2));
    }

    #[test]
    fn brackets_in_strings_and_comments_do_not_nest() {
        let text = format!("# {0}\n'{0}' \"'\"", "{".repeat(100));
        assert!(Plain::new(&text).is_ok());
        let deep = format!("name: \"\\\"\" # \"\n{}", "input <".repeat(NESTING_MAX + 1));
        assert_eq!(
            Plain::new(&deep).err(),
            Some(ConfigError::TooDeep { line: 2 })
        );
    }
}
