//! SQL with named parameters (`:origin`) as PostgreSQL takes it: with numbered ones (`$1`).

/// A query as PostgreSQL takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbered {
    /// With `$1`, `$2`…; without the semicolon at its end, so that it can stand inside of another.
    pub(super) sql: String,
    /// The names of the parameters, in the order of their numbers; each once.
    pub(super) names: Vec<String>,
    /// Whether anything but comments follows a semicolon.
    pub(super) has_more: bool,
}

/// Numbers the parameters. What looks like one inside of texts, quoted names, comments and casts (`::`) is left alone.
pub(super) fn number(sql: &str) -> Numbered {
    let mut numbered = Numbered { sql: String::with_capacity(sql.len()), names: Vec::new(), has_more: false };
    let mut has_ended = false;
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '\'' if ends_in_escape_prefix(&numbered.sql) => quoted(rest, '\'', true),
            '\'' | '"' => quoted(rest, first, false),
            '-' if rest.starts_with("--") => rest.find(['\n', '\r']).map_or(rest.len(), |at| at + 1),
            '/' if rest.starts_with("/*") => comment(rest),
            '$' => dollar_quoted(rest, &numbered.sql),
            ':' if rest.starts_with("::") => 2,
            ':' => {
                let name = name(&rest[1..]);
                if !name.is_empty() && !has_ended {
                    let number = numbered.number_of(name);
                    // `limit:n` is two words, and `limit$1` would be one; so would `$$` begin a text.
                    if numbered.sql.ends_with(is_word) {
                        numbered.sql.push(' ');
                    }
                    numbered.sql.push_str(&format!("${number}"));
                    rest = &rest[1 + name.len()..];
                    continue;
                }
                1
            }
            ';' => {
                has_ended = true;
                1
            }
            other => other.len_utf8(),
        };
        let token = &rest[..taken];
        if !has_ended {
            numbered.sql.push_str(token);
        } else if !(token.trim().is_empty() || [";", "--", "/*"].iter().any(|begin| token.starts_with(begin))) {
            numbered.has_more = true;
            return numbered;
        }
        rest = &rest[taken..];
    }
    numbered
}

impl Numbered {
    fn number_of(&mut self, name: &str) -> usize {
        if let Some(at) = self.names.iter().position(|known| known == name) {
            return at + 1;
        }
        self.names.push(name.to_owned());
        self.names.len()
    }
}

/// The name at the beginning of a text: a letter or `_`, then letters, digits and `_`.
fn name(text: &str) -> &str {
    let is_part = |at: usize, c: char| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit());
    let end = text.char_indices().find(|(at, c)| !is_part(*at, *c)).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// Whether a text that begins here has escapes with `\`: `E'…'`.
fn ends_in_escape_prefix(before: &str) -> bool {
    let mut back = before.chars().rev();
    back.next().is_some_and(|c| matches!(c, 'e' | 'E')) && !back.next().is_some_and(is_word)
}

fn is_word(c: char) -> bool {
    c == '_' || c == '$' || c.is_alphanumeric()
}

/// How long the quoted text is that begins here; a doubled quote is one inside of it, and simply ends and begins anew.
fn quoted(text: &str, quote: char, has_escapes: bool) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' && has_escapes {
            chars.next();
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// How long the comment is that begins here. Comments nest.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// How long the text in `$tag$` is that begins here; 1 if none does.
fn dollar_quoted(text: &str, before: &str) -> usize {
    if before.chars().next_back().is_some_and(is_word) {
        return 1;
    }
    let tag = name(&text[1..]);
    let open = 2 + tag.len();
    if !text[1 + tag.len()..].starts_with('$') {
        return 1;
    }
    let delimiter = &text[..open];
    text[open..].find(delimiter).map_or(text.len(), |at| open + at + delimiter.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: &str, names: &[&str]) {
        let numbered = number(sql);
        assert_eq!(
            (numbered.sql.as_str(), numbered.names.iter().map(String::as_str).collect()),
            (expected, names.to_vec())
        );
    }

    #[test]
    fn names_become_numbers_each_its_own() {
        check("select :a, :b_2, :a", "select $1, $2, $1", &["a", "b_2"]);
        check("where x = any(:list) and y>:y;", "where x = any($1) and y>$2", &["list", "y"]);
        check("select 1 limit:n", "select 1 limit $1", &["n"]);
        check("select $:a", "select $ $1", &["a"]);
        check("select :n::int, cast(:n as text)", "select $1::int, cast($1 as text)", &["n"]);
    }

    #[test]
    fn what_only_looks_like_one_is_left_alone() {
        for sql in [
            "select ':a', 'it''s :a', '\\' , ':a'",
            "select E'\\':a', e'\\\\' , 1",
            r#"select ":a", "x""y:a""#,
            "select 1 -- :a ; '\n, 2",
            "select /* :a /* ; */ ' */ 1",
            "select $$:a;$$, $tag$ :a $$ ; $tag$",
            "select x::text, a[1:2], now() at time zone 'utc'",
            "select 'ä:a', x1$ from t",
        ] {
            check(sql, sql, &[]);
        }
        check("select 1 -- :a\r, :b", "select 1 -- :a\r, $1", &["b"]);
        check("select date':a', :b", "select date':a', $1", &["b"]);
        check("select ty'\\', :b", "select ty'\\', $1", &["b"]);
        for (sql, has_more) in [
            ("select 1", false),
            ("select 1 ; -- that is all\n /* yes */ ;", false),
            ("select 1; drop table x", true),
            ("select 1;:a", true),
        ] {
            let numbered = number(sql);
            assert_eq!((numbered.sql.trim_end(), numbered.has_more), ("select 1", has_more), "{sql}");
        }
        check("select 'open :a", "select 'open :a", &[]);
    }
}
