//! Tables for people: columns without lines, so that `grep` and `awk` can read them, too. On a terminal
//! long cells are wrapped to its width.

use crate::output;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

/// A column: its heading, and whether it holds numbers.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    Text(&'static str),
    Number(&'static str),
}

/// The table as text, with an end of line after each row.
pub fn render(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|column| {
        let (Column::Text(heading) | Column::Number(heading)) = column;
        cell(*column, heading)
    }));
    for row in rows {
        let cells = columns.iter().zip(row);
        table.add_row(cells.map(|(column, text)| cell(*column, &text)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

fn cell(column: Column, text: &str) -> Cell {
    let text = output::shown(text);
    match column {
        Column::Text(_) => Cell::new(text),
        Column::Number(_) => Cell::new(text).set_alignment(CellAlignment::Right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let columns = [Column::Text("NAME"), Column::Number("COUNT")];
        let rows = [
            vec!["a".to_owned(), "1000".to_owned()],
            vec!["digits".into(), "7".into()],
        ];
        let text = render(&columns, rows);
        assert_eq!(text, "NAME    COUNT\na        1000\ndigits      7\n");
    }
}
