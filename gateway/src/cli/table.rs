//! Rows as a table that a person can read: numbers to the right, the rest to the left.

use serde_json::Value;

use super::output::printable;

/// Cells longer than this are cut, with `…`.
const CELL_CHARS_MAX: usize = 60;

/// Lays out a table. Rows shorter than `columns` are filled up with nothing.
pub fn render(columns: &[String], rows: &[Vec<Value>]) -> String {
    let head: Vec<String> = columns.iter().map(|name| cut(name)).collect();
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    let width = |at: usize| {
        let of_row = |row: &Vec<String>| row.get(at).map_or(0, |text| text.chars().count());
        cells.iter().chain([&head]).map(of_row).max().unwrap_or(0)
    };
    let is_number = |at: usize| {
        let mut values = rows.iter().filter_map(|row| row.get(at)).filter(|value| !value.is_null()).peekable();
        values.peek().is_some() && values.all(Value::is_number)
    };
    let layout: Vec<(usize, bool)> = (0..head.len()).map(|at| (width(at), is_number(at))).collect();
    let rule: Vec<String> = layout.iter().map(|(width, _)| "─".repeat(*width)).collect();
    let lines = [&head, &rule].into_iter().chain(&cells).map(|row| line(row, &layout));
    lines.collect::<Vec<_>>().join("\n")
}

/// Lays out a list of objects: these fields of each; what is no list is an empty one.
pub fn of_objects(fields: &[&str], objects: &Value) -> String {
    let columns: Vec<String> = fields.iter().map(|name| (*name).to_owned()).collect();
    let row = |object: &Value| fields.iter().map(|name| object[*name].clone()).collect();
    let rows: Vec<Vec<Value>> = objects.as_array().into_iter().flatten().map(row).collect();
    render(&columns, &rows)
}

fn line(row: &[String], layout: &[(usize, bool)]) -> String {
    let padded = layout.iter().enumerate().map(|(at, (width, to_the_right))| {
        let text = row.get(at).map_or("", String::as_str);
        if *to_the_right { format!("{text:>width$}") } else { format!("{text:<width$}") }
    });
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// One value as text; an absent one is `·`, to tell it from an empty text.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "·".to_owned(),
        Value::String(text) => cut(text),
        other => cut(&other.to_string()),
    }
}

fn cut(text: &str) -> String {
    let clean = printable(text).replace('\n', "\\n");
    match clean.char_indices().nth(CELL_CHARS_MAX) {
        None => clean,
        Some(_) => clean.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_nothing_is_a_dot() {
        let rows = [json!(["JFK", 12.5, null]), json!(["Zürich", 7, "x\ny"])];
        let rows: Vec<Vec<Value>> = rows.iter().filter_map(|row| row.as_array().cloned()).collect();
        let columns = ["origin", "delay", "note"].map(str::to_owned);
        let expected = "origin  delay  note\n──────  ─────  ────\nJFK      12.5  ·\nZürich      7  x\\ny";
        assert_eq!(render(&columns, &rows), expected);
    }

    #[test]
    fn long_cells_are_cut() {
        let text = cell(&json!("é".repeat(100)));
        assert_eq!((text.chars().count(), text.ends_with('…')), (CELL_CHARS_MAX, true));
    }
}
