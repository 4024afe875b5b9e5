//! The known name that a wrong one was probably meant to be.

/// The known names, the nearest one first if it is near: for error messages.
pub(crate) fn known<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<_> = names.collect();
    if names.is_empty() {
        return "none are configured".to_owned();
    }
    names.sort_unstable();
    let nearest = names.iter().map(|name| (distance(wrong, name), *name)).min();
    let shown = names.iter().take(SHOWN_MAX).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let more = if names.len() > SHOWN_MAX { format!(" and {} more", names.len() - SHOWN_MAX) } else { String::new() };
    match nearest {
        Some((far, name)) if far <= 1 + name.len() / 3 => format!("did you mean `{name}`? known are {shown}{more}"),
        _ => format!("known are {shown}{more}"),
    }
}

/// A message is read by people.
const SHOWN_MAX: usize = 20;

/// Insertions, deletions and replacements between two short texts.
fn distance(a: &str, b: &str) -> usize {
    // A client chooses `a`, and the work is quadratic.
    let a: Vec<char> = a.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (at_b, in_b) in b.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at_b + 1;
        for (at_a, in_a) in a.iter().enumerate() {
            let replaced = diagonal + usize::from(*in_a != in_b);
            diagonal = row[at_a + 1];
            row[at_a + 1] = replaced.min(row[at_a] + 1).min(diagonal + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_named_if_it_is_near() {
        let names = || ["worst_routes", "delays"].into_iter();
        assert_eq!(known("worst_rutes", names()), "did you mean `worst_routes`? known are `delays`, `worst_routes`");
        assert_eq!(known("x", names()), "known are `delays`, `worst_routes`");
        assert_eq!(known("x", std::iter::empty()), "none are configured");
    }

    #[test]
    fn distances() {
        for (a, b, far) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("ab", "ba", 2)] {
            assert_eq!(distance(a, b), far, "{a} {b}");
        }
    }
}
