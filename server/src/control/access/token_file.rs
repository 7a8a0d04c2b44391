//! The file of bearer tokens: a line for each, `TOKEN right,right,...`.
//!
//! Tokens are kept and compared as digests, all of them for each call, so that the time of a call says nothing
//! about how close a guess was or which token it is.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::{Right, Rights};

/// Fewest characters of a token.
const TOKEN_CHARACTERS_MIN: usize = 16;
/// Most bytes of the file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a token file is refused. No token is ever part of the text.
#[derive(Debug, Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("cannot read access.token_file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("access.token_file {} has mode {mode:03o}; only its owner may have rights, such as 600", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line is wrong.
    #[error("access.token_file {}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What was expected.
        reason: String,
    },
    /// It has none, or too many.
    #[error("access.token_file {} has {byte_size} bytes and {tokens} tokens; it has at least one token and at most {FILE_BYTES_MAX} bytes", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        byte_size: u64,
        /// Tokens in it.
        tokens: usize,
    },
}

/// Tokens and what they allow.
pub(super) struct TokenFile {
    tokens: Vec<([u8; SHA256_OUTPUT_LEN], Rights)>,
}

impl std::fmt::Debug for TokenFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "TokenFile({} tokens)", self.tokens.len())
    }
}

impl TokenFile {
    /// Reads and checks a file.
    pub(super) fn read(path: &Path) -> Result<Self, TokenFileError> {
        let unreadable = |source| TokenFileError::Unreadable {
            path: path.to_owned(),
            source,
        };
        // The mode of what is open, not of what has the name a moment before or after.
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(TokenFileError::Open { path, mode });
        }
        let mut text = String::new();
        let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
        let byte_size = read.map_err(unreadable)? as u64;
        let tokens = if byte_size > FILE_BYTES_MAX {
            Vec::new()
        } else {
            parse(&text).map_err(|(line, reason)| TokenFileError::Line {
                path: path.to_owned(),
                line,
                reason,
            })?
        };
        if tokens.is_empty() {
            return Err(TokenFileError::Size {
                path: path.to_owned(),
                byte_size,
                tokens: 0,
            });
        }
        Ok(Self { tokens })
    }

    /// Which token of the file it is, from 0, and what it allows; nothing is known of it: `None`.
    pub(super) fn find(&self, token: &[u8]) -> Option<(usize, Rights)> {
        let presented = digest_of(token);
        let mut found = None;
        for (index, (known, rights)) in self.tokens.iter().enumerate() {
            if bool::from(known.ct_eq(&presented)) {
                found = Some((index, *rights));
            }
        }
        found
    }
}

fn digest_of(token: &[u8]) -> [u8; SHA256_OUTPUT_LEN] {
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest(&SHA256, token).as_ref());
    bytes
}

type Entry = ([u8; SHA256_OUTPUT_LEN], Rights);

/// The tokens of a text, or the line that is wrong and why.
fn parse(text: &str) -> Result<Vec<Entry>, (usize, String)> {
    let mut tokens: Vec<Entry> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let wrong = |reason: String| (index + 1, reason);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((token, names)) = line.split_once([' ', '\t']) else {
            return Err(wrong("expected `TOKEN right,right,...`".into()));
        };
        let characters = token.chars().count();
        if characters < TOKEN_CHARACTERS_MIN {
            return Err(wrong(format!(
                "the token has {characters} characters; it has at least {TOKEN_CHARACTERS_MIN}"
            )));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(
                "the token has characters beyond those of ASCII that can be seen".into(),
            ));
        }
        let mut rights = Rights::default();
        for name in names.split(',').map(str::trim) {
            let right = Right::from_name(name)
                .ok_or_else(|| wrong(format!("{name:?} is no right; {}", expected_rights())))?;
            rights = rights.with(Rights::of(&[right]));
        }
        let digest = digest_of(token.as_bytes());
        if tokens.iter().any(|(known, _)| *known == digest) {
            return Err(wrong("the token is in a line before".into()));
        }
        tokens.push((digest, rights));
    }
    Ok(tokens)
}

/// The names of rights, for messages.
fn expected_rights() -> String {
    let names = Right::ALL.map(Right::name);
    format!("rights are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn read(text: &str, mode: u32) -> Result<TokenFile, TokenFileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        TokenFile::read(file.path())
    }

    #[test]
    fn tokens_have_the_rights_of_their_line() {
        let text = format!("# who\n\n{TOKEN} infer, health\n  {TOKEN}2\tcontrol\n");
        let file = read(&text, 0o600).unwrap();
        assert_eq!(
            file.find(TOKEN.as_bytes()),
            Some((0, Rights::of(&[Right::Infer, Right::Health])))
        );
        let other = format!("{TOKEN}2");
        assert_eq!(
            file.find(other.as_bytes()),
            Some((1, Rights::of(&[Right::Control])))
        );
        for wrong in ["", "0123456789abcde", "0123456789abcdeF", "# who"] {
            assert_eq!(file.find(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn wrong_files_are_refused_without_telling_a_token() {
        for (text, word) in [
            (TOKEN.to_owned(), "line 1: expected"),
            (format!("\n{TOKEN} infer\n{TOKEN} control"), "line 3"),
            (
                "0123456789abcde infer".to_owned(),
                "15 characters; it has at least 16",
            ),
            (format!("{TOKEN}\u{e9} infer"), "ASCII"),
            (format!("{TOKEN} infer,all"), "\"all\" is no right"),
            (format!("{TOKEN} infer,"), "\"\" is no right"),
            ("# none\n".to_owned(), "0 tokens"),
            ("#".repeat(2 << 20), "at most 1048576 bytes"),
        ] {
            let message = read(&text, 0o600).unwrap_err().to_string();
            assert!(message.contains(word), "{message:?}: {word:?}");
            assert!(!message.contains("0123456789abcde"), "{message:?}");
        }
    }

    #[test]
    fn files_that_others_may_touch_are_refused() {
        let text = format!("{TOKEN} infer");
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o610] {
            let message = read(&text, mode).unwrap_err().to_string();
            assert!(message.contains(&format!("mode {mode:03o}")), "{message}");
        }
        for mode in [0o600, 0o400, 0o700] {
            assert!(read(&text, mode).is_ok(), "{mode:o}");
        }
        let missing = TokenFile::read(Path::new("/no/such/file")).unwrap_err();
        assert!(missing.to_string().contains("/no/such/file"));
    }
}
