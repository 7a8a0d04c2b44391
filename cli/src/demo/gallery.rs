//! Pictures as block characters, each with what the model read.

use super::digits::{Digits, Reading, SIDE};
use crate::output::Paint;

/// From no ink to full.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
/// The most ink of a pixel.
const INK_MAX: usize = 16;
/// A pixel is this many characters wide, since characters are twice as high as wide.
const PIXEL_WIDTH: usize = 2;
const GAP: &str = "   ";
const PER_ROW: usize = 4;
/// Pictures in all.
const COUNT: usize = 8;
/// Pictures that the model got wrong, at most.
const WRONG_COUNT_MAX: usize = 2;

/// Which pictures are shown: one of each of the first digits, and some that were read wrongly.
pub(super) fn choose(digits: &Digits, readings: &[Reading]) -> Vec<usize> {
    let is_right = |&index: &usize| readings[index].digit == digits.labels[index];
    let wrong = (0..digits.count())
        .filter(|index| !is_right(index))
        .take(WRONG_COUNT_MAX);
    let wrong: Vec<usize> = wrong.collect();
    let first_of = |digit: u8| {
        (0..digits.count()).find(|index| digits.labels[*index] == digit && is_right(index))
    };
    let mut chosen: Vec<usize> = (0..10)
        .filter_map(first_of)
        .take(COUNT - wrong.len())
        .collect();
    chosen.extend(wrong);
    chosen
}

/// The pictures side by side, with the answers below.
pub(super) fn draw(
    digits: &Digits,
    readings: &[Reading],
    chosen: &[usize],
    paint: Paint,
) -> String {
    let mut text = String::new();
    for row in chosen.chunks(PER_ROW) {
        for line in 0..SIDE {
            let lines: Vec<String> = row
                .iter()
                .map(|&index| picture_line(digits.image(index), line))
                .collect();
            text.push_str(lines.join(GAP).trim_end());
            text.push('\n');
        }
        let captions: Vec<String> = row
            .iter()
            .map(|&index| caption(readings[index], digits.labels[index], paint))
            .collect();
        text.push_str(captions.join(GAP).trim_end());
        text.push_str("\n\n");
    }
    text
}

fn picture_line(image: &[u8], line: usize) -> String {
    let pixels = &image[line * SIDE..(line + 1) * SIDE];
    pixels
        .iter()
        .flat_map(|&ink| std::iter::repeat_n(shade(ink), PIXEL_WIDTH))
        .collect()
}

fn shade(ink: u8) -> char {
    SHADES[usize::from(ink).min(INK_MAX) * SHADES.len() / (INK_MAX + 1)]
}

fn caption(reading: Reading, label: u8, paint: Paint) -> String {
    let percent = reading.confidence * 100.0;
    let width = SIDE * PIXEL_WIDTH;
    if reading.digit == label {
        paint.green(&format!(
            "{:<width$}",
            format!("{}  {percent:.1} %", reading.digit)
        ))
    } else {
        paint.red(&format!(
            "{:<width$}",
            format!("{} but is {label} {percent:.0}%", reading.digit)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ink_is_blank_and_full_ink_is_black() {
        assert_eq!(
            [0, 4, 8, 12, 16, 200].map(shade),
            [' ', '░', '▒', '▓', '█', '█']
        );
    }

    #[test]
    fn gallery_shows_wrong_readings_and_fits_80_columns() {
        let digits = Digits::load().unwrap();
        let mut readings: Vec<Reading> = digits
            .labels
            .iter()
            .map(|&digit| Reading {
                digit,
                confidence: 0.999,
            })
            .collect();
        readings[7].digit = (digits.labels[7] + 1) % 10;
        let chosen = choose(&digits, &readings);
        assert_eq!((chosen.len(), chosen.last()), (COUNT, Some(&7)));
        let text = draw(&digits, &readings, &chosen, Paint::for_stdout());
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2 * (SIDE + 2));
        assert!(text.contains("but is"), "{text}");
    }
}
