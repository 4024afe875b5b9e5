//! The chart of a report: bars for one numeric column of the first rows.

use std::fmt::Write;

use super::escape;
use crate::jobs::results::cells::Cell;

/// More bars are not read by anybody.
const BARS_MAX: usize = 30;

/// A label is cut after this many characters.
const LABEL_MAX: usize = 32;

const WIDTH: f64 = 720.0;
const LABEL_WIDTH: f64 = 220.0;
const VALUE_WIDTH: f64 = 70.0;
const BAR_STEP: f64 = 22.0;

/// What it takes to choose a column and to draw it.
pub(super) struct Chart {
    columns: Vec<Column>,
    rows: usize,
}

#[derive(Default)]
struct Column {
    /// Of the first rows, as text, and as a number where it is one.
    first: Vec<(String, Option<f64>)>,
    numbers: usize,
    others: usize,
    last: Option<f64>,
    rises: bool,
    falls: bool,
}

impl Chart {
    pub(super) fn new(columns: usize) -> Self {
        Self { columns: std::iter::repeat_with(Column::default).take(columns).collect(), rows: 0 }
    }

    pub(super) fn row(&mut self, cells: &[Cell<'_>]) {
        self.rows += 1;
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.add(cell);
        }
    }

    /// Whether a column has numbers and nothing else.
    pub(super) fn is_numeric(&self, at: usize) -> bool {
        self.columns.get(at).is_some_and(|column| column.numbers > 0 && column.others == 0)
    }

    /// Draws, if there is something to compare.
    pub(super) fn draw(&self, out: &mut String, names: &[String]) {
        let Some(value) = self.value_column().filter(|_| self.rows > 1) else { return };
        let bars = self.columns[value].first.len();
        let values: Vec<f64> = self.columns[value].first.iter().map(|(_, number)| number.unwrap_or(0.0)).collect();
        let least = values.iter().copied().fold(0.0, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        let span = if most > least { most - least } else { 1.0 };
        let scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / span;
        let zero = LABEL_WIDTH - least * scale;
        let height = bars as f64 * BAR_STEP;
        write!(out, "<figure><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"")
            .expect("a string grows");
        escape(out, &names[value]);
        out.push_str("\">\n");
        for (at, number) in values.iter().enumerate() {
            self.bar(out, at, value, *number, (zero, scale));
        }
        write!(out, "<line x1=\"{zero:.1}\" x2=\"{zero:.1}\" y1=\"0\" y2=\"{height}\"/>\n</svg>\n<figcaption>")
            .expect("a string grows");
        escape(out, &names[value]);
        if self.rows > bars {
            write!(out, ", the first {bars} of {} rows", self.rows).expect("a string grows");
        }
        out.push_str("</figcaption></figure>\n");
    }

    fn bar(&self, out: &mut String, at: usize, value: usize, number: f64, (zero, scale): (f64, f64)) {
        let top = at as f64 * BAR_STEP;
        let middle = top + BAR_STEP / 2.0 + 4.0;
        let (left, width) = (zero.min(zero + number * scale), (number * scale).abs());
        let class = if number < 0.0 { " class=\"minus\"" } else { "" };
        write!(out, "<text x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\">", LABEL_WIDTH - 8.0)
            .expect("a string grows");
        escape(out, &self.label(at, value));
        let (bar_top, bar_height) = (top + 3.0, BAR_STEP - 6.0);
        write!(
            out,
            "</text><rect{class} x=\"{left:.1}\" y=\"{bar_top:.1}\" width=\"{width:.1}\" height=\"{bar_height:.1}\" rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"{middle:.1}\">",
            left + width + 6.0
        )
        .expect("a string grows");
        escape(out, &self.columns[value].first[at].0);
        out.push_str("</text>\n");
    }

    /// The column that the query sorts by, biggest first, if there is one; else the last numeric one, which is where
    /// people write what they count.
    fn value_column(&self) -> Option<usize> {
        let numeric = || (0..self.columns.len()).filter(|at| self.is_numeric(*at));
        let sorted = numeric().find(|at| self.columns[*at].falls && !self.columns[*at].rises);
        sorted.or_else(|| numeric().next_back())
    }

    fn label(&self, row: usize, value: usize) -> String {
        let text = |at: usize| self.columns[at].first.get(row).map_or("", |(text, _)| text);
        let names: Vec<_> = (0..self.columns.len()).filter(|at| !self.is_numeric(*at)).map(text).collect();
        let label = match names.is_empty() {
            false => names.join(" "),
            true => (0..self.columns.len()).find(|at| *at != value).map(text).unwrap_or_default().to_owned(),
        };
        if label.chars().count() <= LABEL_MAX {
            label
        } else {
            label.chars().take(LABEL_MAX - 1).chain(['…']).collect()
        }
    }
}

impl Column {
    fn add(&mut self, cell: &Cell<'_>) {
        let number = match cell {
            Cell::Number(text) => text.parse::<f64>().ok().filter(|n| n.is_finite()),
            Cell::Null | Cell::Text(_) | Cell::Json(_) => None,
        };
        match (cell, number) {
            (_, Some(_)) => self.numbers += 1,
            (Cell::Null, None) => {}
            (_, None) => self.others += 1,
        }
        if let (Some(last), Some(number)) = (self.last, number) {
            self.rises |= number > last;
            self.falls |= number < last;
        }
        self.last = number.or(self.last);
        if self.first.len() < BARS_MAX {
            self.first.push((cell.text().chars().take(LABEL_MAX + 1).collect(), number));
        }
    }
}
