//! What people and programs read: standard output that survives a closed pipe, one line for an error,
//! colours only on a terminal.

use std::error::Error;
use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;

use crate::Failure;

/// Writes text to standard output. That nobody reads it any more, as after `| head`, is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}").into())
        }
        _ => Ok(()),
    }
}

/// Writes a value as JSON for programs, with an end of line.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Says on standard error, in one line, why the command failed.
pub fn print_error(program: &str, error: &(dyn Error + Send + Sync)) {
    // Nothing is left to be done if that fails, too.
    let _ = writeln!(
        std::io::stderr(),
        "{program}: {}",
        one_line(&error.to_string())
    );
}

/// A text of several lines as one.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether progress may be drawn.
pub fn is_progress_wanted() -> bool {
    std::io::stderr().is_terminal()
}

/// Colours for standard output; none where it is no terminal, or where the user wants none.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    is_on: bool,
}

impl Paint {
    pub fn for_stdout() -> Self {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            is_on: !is_unwanted && std::io::stdout().is_terminal(),
        }
    }

    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.is_on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A number with its digits in groups of three.
pub fn grouped(number: u64) -> String {
    grouped_digits(&number.to_string())
}

/// A rate, which is not below zero, without its decimals.
pub fn grouped_rate(rate: f64) -> String {
    grouped_digits(&format!("{rate:.0}"))
}

fn grouped_digits(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Bytes for people, in units of 1024.
pub fn bytes_text(byte_size: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = byte_size as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 || size.fract() == 0.0 {
        format!("{size:.0} {}", UNITS[unit])
    } else {
        format!("{size:.1} {}", UNITS[unit])
    }
}

/// Text from elsewhere as a terminal may show it: control characters do nothing there.
pub fn shown(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(grouped_rate(1999.6), "2 000");
        assert_eq!(bytes_text(512), "512 B");
        assert_eq!(bytes_text(614_400), "600 KiB");
        assert_eq!(bytes_text(33_685_504), "32.1 MiB");
    }

    #[test]
    fn error_of_several_lines_becomes_one() {
        assert_eq!(one_line("a\n  b\n\nc"), "a b c");
    }
}
