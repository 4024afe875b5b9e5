//! Reads the text of `/metrics` back, so that the page never says anything else than the metrics do.

/// One value of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample<'a> {
    /// The name without `groupcast_`, as in `deliveries_total`.
    pub(super) name: &'a str,
    /// What stands between the braces; empty without.
    labels: &'a str,
    /// The value.
    pub(super) value: f64,
}

impl<'a> Sample<'a> {
    /// The value of a label. Escapes in it are left as they are.
    pub(super) fn label(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        while let Some((key, after)) = rest.split_once("=\"") {
            let end = end_of_text(after)?;
            if key == name {
                return Some(&after[..end]);
            }
            rest = after[end + 1..].trim_start_matches(',');
        }
        None
    }

    /// Whether there are no labels.
    pub(super) fn is_plain(&self) -> bool {
        self.labels.is_empty()
    }
}

/// All values of a text (OpenMetrics 1.0, section "Overall Structure").
pub(super) fn read(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.strip_prefix("groupcast_")?;
    // A label may have spaces; a value and what may follow it have none.
    let (name, labels, rest) = match line.find('{') {
        Some(open) => {
            let close = line.rfind("} ")?;
            (&line[..open], line.get(open + 1..close)?, &line[close + 2..])
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, "", rest)
        }
    };
    let value = rest.split(' ').next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// Where the text that has begun ends, by its quotation mark.
fn end_of_text(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_their_labels() {
        let text = "# HELP groupcast_a x\n# TYPE groupcast_a counter\ngroupcast_a_total 7\n\
            groupcast_b{x=\"1\",y=\"a\\\"b, {c=\\\\\"} 2.5\ngroupcast_b_bucket{le=\"+Inf\",x=\"\"} 3\nother 4\n# EOF\n";
        let all: Vec<_> = read(text).collect();
        let found: Vec<_> = all.iter().map(|sample| (sample.name, sample.value)).collect();
        assert_eq!(found, [("a_total", 7.0), ("b", 2.5), ("b_bucket", 3.0)]);
        assert!(all[0].is_plain() && !all[1].is_plain());
        assert_eq!((all[1].label("x"), all[1].label("y")), (Some("1"), Some("a\\\"b, {c=\\\\")));
        assert_eq!((all[1].label("z"), all[2].label("le"), all[2].label("x")), (None, Some("+Inf"), Some("")));
    }
}
