//! The page of a report: one file, no script, nothing loaded from elsewhere, readable in light and dark.

use std::fmt::Write;

use super::chart::Chart;
use super::{About, escape};
use crate::jobs::results::RowSet;
use crate::jobs::results::cells::Cell;

/// Colours by role; the dark set is chosen for its ground and not inverted.
const STYLE: &str = "
:root { color-scheme: light dark; --ground: #fcfcfb; --text: #1c1b19; --quiet: #5f5d58; --line: #deddd8; --bar: #2a6fb0; --bad: #b3422f; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #171716; --text: #eceae4; --quiet: #a3a099; --line: #3a3936; --bar: #6ba6e0; --bad: #e58b78; }
}
body { background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; text-wrap: balance; }
p, dl { color: var(--quiet); margin: .25rem 0; }
dl { display: flex; flex-wrap: wrap; gap: 0 1.5rem; }
dl div { display: flex; gap: .4rem; }
dd { margin: 0; color: var(--text); }
.cut { color: var(--bad); }
figure { margin: 1.5rem 0; overflow-x: auto; }
svg { width: 100%; min-width: 32rem; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--text); }
svg rect { fill: var(--bar); }
svg .minus { fill: var(--bad); }
svg line { stroke: var(--line); }
figcaption { color: var(--quiet); font-size: .9rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; color: var(--quiet); font-weight: 600; position: sticky; top: 0; background: var(--ground); }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: pre-wrap; vertical-align: top; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
@media print { body { max-width: none; margin: 0; } th { position: static; } }
";

/// A page under construction: the head, then rows, then the end.
pub(super) struct Page {
    head: String,
    rows: String,
    columns: Vec<String>,
    chart: Chart,
}

impl Page {
    pub(super) fn new(about: &About, rows: &RowSet) -> Self {
        let mut head = String::from("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n");
        head.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        // Even if something got through the escaping, it could neither run nor load.
        head.push_str("<meta http-equiv=\"Content-Security-Policy\" ");
        head.push_str("content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>");
        escape(&mut head, &about.title);
        write!(head, "</title>\n<style>{STYLE}</style>\n<h1>").expect("a string grows");
        escape(&mut head, &about.title);
        head.push_str("</h1>\n<dl>");
        let rows_made = rows.row_count().to_string();
        let facts = [("query", &about.query), ("rows", &rows_made), ("made", &about.made_at)];
        let params = about.params.iter().map(|(name, value)| (name.as_str(), value));
        for (name, value) in params.chain(facts) {
            head.push_str("<div><dt>");
            escape(&mut head, name);
            head.push_str("</dt><dd>");
            escape(&mut head, value);
            head.push_str("</dd></div>");
        }
        head.push_str("</dl>\n");
        if rows.truncated {
            head.push_str("<p class=\"cut\">The query's budget cut this result; there are more rows.</p>\n");
        }
        let columns = rows.columns.clone();
        Self { head, rows: String::with_capacity(rows.bytes() as usize * 2), chart: Chart::new(columns.len()), columns }
    }

    pub(super) fn row(&mut self, cells: &[Cell<'_>]) {
        self.chart.row(cells);
        self.rows.push_str("<tr>");
        for cell in cells {
            self.rows.push_str(if matches!(cell, Cell::Number(_)) { "<td class=\"n\">" } else { "<td>" });
            escape(&mut self.rows, cell.text());
            self.rows.push_str("</td>");
        }
        self.rows.push_str("</tr>\n");
    }

    pub(super) fn finish(self) -> String {
        let mut page = self.head;
        self.chart.draw(&mut page, &self.columns);
        page.push_str("<div class=\"table\"><table>\n<thead><tr>");
        for (at, column) in self.columns.iter().enumerate() {
            page.push_str(if self.chart.is_numeric(at) { "<th class=\"n\">" } else { "<th>" });
            escape(&mut page, column);
            page.push_str("</th>");
        }
        page.push_str("</tr></thead>\n<tbody>\n");
        page.push_str(&self.rows);
        page.push_str("</tbody>\n</table></div>\n</html>\n");
        page
    }
}
