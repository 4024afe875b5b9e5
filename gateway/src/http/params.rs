//! The query string, read strictly: a parameter that is unknown, there twice or out of range is told, not ignored.

use std::ops::RangeInclusive;

use axum::extract::Query;
use groupcast_protocol::ErrorCode;
use http::Uri;

use super::problem::Problem;

/// The parameters of a query string.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the query string; `known` are all parameters that the route takes.
    pub(super) fn parse(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
            return Err(bad("the query string cannot be read; write it as in `?limit=10&after=x`".to_owned()));
        };
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(bad(format!("the parameter {:?} is not known here; known: {list}", shorten(name))));
            }
            if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(bad(format!("the parameter `{name}` is there twice; give it once")));
            }
        }
        Ok(Self(pairs))
    }

    /// A parameter as it is.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that parses.
    pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Problem> {
        let told = |e: T::Err| bad(format!("the parameter `{name}`: {e}"));
        self.text(name).map(|text| text.parse().map_err(told)).transpose()
    }

    /// A whole number within bounds.
    pub(super) fn whole(&self, name: &str, bounds: RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        // `u64::from_str` takes a leading `+`, which is a space that somebody forgot to escape.
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse().ok().filter(|n| digits && bounds.contains(n)) {
            Some(number) => Ok(Some(number)),
            None => {
                let (least, most) = bounds.into_inner();
                let needed = match most {
                    u64::MAX => format!("a whole number of {least} or more"),
                    _ => format!("a whole number from {least} to {most}"),
                };
                Err(bad(format!("the parameter `{name}` is {:?}; it has to be {needed}", shorten(text))))
            }
        }
    }

    /// `limit`, from 1 to [`LIMIT_MAX`]; default [`LIMIT_DEFAULT`].
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let limit = self.whole("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
        Ok(usize::try_from(limit).expect("the limit is small"))
    }
}

/// Entries of one page, unless asked otherwise.
const LIMIT_DEFAULT: u64 = 100;
/// The most entries of one page: a page is built in memory.
pub(super) const LIMIT_MAX: u64 = 1000;

/// Cuts a list that was read one entry too long, and names where the next page begins.
pub(super) fn next_page<T>(entries: &mut Vec<T>, limit: usize, name: impl Fn(&T) -> String) -> Option<String> {
    let more = entries.len() > limit;
    entries.truncate(limit);
    entries.last().filter(|_| more).map(name)
}

fn bad(detail: String) -> Problem {
    Problem::new(ErrorCode::BadRequest, detail)
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Params, Problem> {
        let uri = format!("/x?{query}").parse().expect("a good URI");
        Params::parse(&uri, &["limit", "after"])
    }

    fn detail(result: Result<impl std::fmt::Debug, Problem>) -> String {
        result.expect_err("to be refused").body().detail().to_owned()
    }

    #[test]
    fn numbers_are_whole_and_within_bounds() {
        assert_eq!(parse("limit=1000&after=a%20b").and_then(|p| p.limit()).expect("fine"), 1000);
        assert_eq!(parse("").and_then(|p| p.limit()).expect("fine"), 100);
        for text in ["0", "1001", "-1", "+5", "%2B5", "1.0", "", "x", "99999999999999999999"] {
            let told = detail(parse(&format!("limit={text}")).and_then(|p| p.limit()));
            assert!(told.contains("from 1 to 1000"), "{text}: {told}");
        }
    }

    #[test]
    fn unknown_and_repeated_parameters_are_told() {
        assert!(detail(parse("limt=5")).contains("known: limit, after"));
        assert!(detail(parse("limit=5&limit=6")).contains("twice"));
    }

    #[test]
    fn a_page_names_the_next_one_only_if_there_is_one() {
        let mut entries = vec![1, 2, 3];
        assert_eq!(next_page(&mut entries, 2, i32::to_string), Some("2".to_owned()));
        assert_eq!(next_page(&mut entries, 2, i32::to_string), None);
    }
}
