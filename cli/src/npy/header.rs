//! The header of a `.npy` file: a Python dictionary in text, of which only what numpy writes is read.

use std::io::{Read, Write};
use std::str::Chars;

use super::NpyError;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header that is read. numpy itself refuses longer ones than 10,000 characters by default.
const BYTE_SIZE_MAX: u32 = 64 * 1024;
/// The header ends at a multiple of this many bytes.
const ALIGNMENT: usize = 64;

/// What the header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Type of the elements, such as `<f4`.
    pub(super) descr: String,
    pub(super) is_fortran_order: bool,
    pub(super) shape: Vec<u64>,
}

impl Header {
    pub(super) fn read(file: &mut impl Read) -> Result<Self, NpyError> {
        let mut start = [0; 8];
        read_exact(file, &mut start, NpyError::NotNpy)?;
        if start[..6] != *MAGIC {
            return Err(NpyError::NotNpy);
        }
        let cut_off = || NpyError::Header("the file ends in it".into());
        let byte_size = if start[6] == 1 {
            let mut size = [0; 2];
            read_exact(file, &mut size, cut_off())?;
            u32::from(u16::from_le_bytes(size))
        } else {
            let mut size = [0; 4];
            read_exact(file, &mut size, cut_off())?;
            u32::from_le_bytes(size)
        };
        if byte_size > BYTE_SIZE_MAX {
            return Err(NpyError::Header(format!(
                "it has {byte_size} bytes, more than {BYTE_SIZE_MAX}"
            )));
        }
        let mut text = vec![0; byte_size as usize];
        read_exact(file, &mut text, cut_off())?;
        Self::parse(&String::from_utf8_lossy(&text)).map_err(NpyError::Header)
    }

    /// Reads the dictionary.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut cursor = Cursor { rest: text.chars() };
        let mut header = Self::default();
        let mut seen = [false; 3];
        cursor.expect('{')?;
        while !cursor.take('}') {
            let key = cursor.string()?;
            cursor.expect(':')?;
            let index = match key.as_str() {
                "descr" => {
                    header.descr = cursor.descr()?;
                    0
                }
                "fortran_order" => {
                    header.is_fortran_order = cursor.truth()?;
                    1
                }
                "shape" => {
                    header.shape = cursor.tuple()?;
                    2
                }
                other => return Err(format!("unknown key {other:?}")),
            };
            seen[index] = true;
            if !cursor.take(',') {
                cursor.expect('}')?;
                break;
            }
        }
        match ["descr", "fortran_order", "shape"]
            .iter()
            .zip(seen)
            .find(|(_, seen)| !seen)
        {
            Some((key, _)) => Err(format!("{key:?} is missing")),
            None => Ok(header),
        }
    }
}

fn read_exact(file: &mut impl Read, bytes: &mut [u8], at_end: NpyError) -> Result<(), NpyError> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => at_end,
        _ => error.into(),
    })
}

/// Writes a header of version 1, which holds shapes of any rank that tensors have.
pub(super) fn write(file: &mut impl Write, descr: &str, shape: &[i64]) -> std::io::Result<()> {
    let sizes: Vec<String> = shape.iter().map(i64::to_string).collect();
    // As Python writes tuples, so that the file is the same as numpy's byte for byte.
    let shape = match sizes.as_slice() {
        [one] => format!("({one},)"),
        sizes => format!("({})", sizes.join(", ")),
    };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // The text ends with a line feed, and what comes before the data is filled up with spaces.
    let unpadded = MAGIC.len() + 4 + text.len() + 1;
    text.extend(std::iter::repeat_n(
        ' ',
        unpadded.next_multiple_of(ALIGNMENT) - unpadded,
    ));
    text.push('\n');
    let size = u16::try_from(text.len()).map_err(std::io::Error::other)?;
    file.write_all(MAGIC)?;
    file.write_all(&[1, 0])?;
    file.write_all(&size.to_le_bytes())?;
    file.write_all(text.as_bytes())
}

/// A place in the text.
struct Cursor<'t> {
    rest: Chars<'t>,
}

impl Cursor<'_> {
    fn peek(&mut self) -> Option<char> {
        let trimmed = self.rest.as_str().trim_start();
        self.rest = trimmed.chars();
        trimmed.chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        if is_there {
            self.rest.next();
        }
        is_there
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.take(wanted) {
            return Ok(());
        }
        Err(match self.peek() {
            Some(other) => format!("{other:?} where {wanted:?} belongs"),
            None => format!("it ends where {wanted:?} belongs"),
        })
    }

    fn string(&mut self) -> Result<String, String> {
        let quote = if self.take('"') {
            '"'
        } else {
            self.expect('\'')?;
            '\''
        };
        let text: String = self
            .rest
            .by_ref()
            .take_while(|&character| character != quote)
            .collect();
        Ok(text)
    }

    /// The type of the elements; that of structured arrays is a list.
    fn descr(&mut self) -> Result<String, String> {
        if self.peek() != Some('[') {
            return self.string();
        }
        let mut depth = 0_u32;
        for character in self.rest.by_ref() {
            match character {
                '[' | '(' => depth += 1,
                ']' | ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok("structure".into());
            }
        }
        Err("a list has no end".into())
    }

    fn word(&mut self) -> String {
        self.peek();
        let text = self.rest.as_str();
        let end = text
            .find(|character: char| !character.is_ascii_alphanumeric())
            .unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.rest = rest.chars();
        word.to_owned()
    }

    fn truth(&mut self) -> Result<bool, String> {
        match self.word().as_str() {
            "True" => Ok(true),
            "False" => Ok(false),
            other => Err(format!("{other:?} where True or False belongs")),
        }
    }

    fn tuple(&mut self) -> Result<Vec<u64>, String> {
        let mut sizes = Vec::new();
        self.expect('(')?;
        while !self.take(')') {
            let word = self.word();
            // Python 2 wrote long integers with an L.
            let number = word.strip_suffix('L').unwrap_or(&word).parse();
            sizes.push(number.map_err(|_| format!("{word:?} is no dimension"))?);
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(sizes)
    }
}
