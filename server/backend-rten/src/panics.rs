//! Panics of the engine, which must not reach the server.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `call` and makes a panic an error text.
///
/// What `call` borrows is used again afterwards: a model, which runs do not change, and buffers of plain
/// numbers, which every run fills anew.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| format!("it panicked: {}", text(&*panic)))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else {
        "without a word"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_is_a_text() {
        assert_eq!(caught(|| 1), Ok(1));
        let index = 3;
        let error = caught(|| [1, 2][std::hint::black_box(index)]).unwrap_err();
        assert!(error.contains("out of bounds"), "{error}");
        let error = caught(|| panic!("odd")).unwrap_err();
        assert_eq!(error, "it panicked: odd");
    }
}
