//! What a stream is asked for: groups, and where to go on in each; and queries. All of it is untrusted: strict and
//! bounded.

use axum::extract::Query;
use groupcast_protocol::sse::Positions;
use groupcast_protocol::{ErrorCode, GroupName, Position, Refusal};
use http::{HeaderMap, HeaderName, Uri};

use crate::http::problem::Problem;

/// What clients of event streams come back with (HTML standard, section 9.2.4, "The `Last-Event-ID` header").
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Groups, each with the position to go on after.
pub(super) type Groups = Vec<(GroupName, Option<Position>)>;

/// A query by its name, with its parameters as they stand in the address.
#[derive(Debug, Default)]
pub(super) struct InWords {
    pub(super) name: String,
    pub(super) params: Vec<(String, String)>,
}

/// All that a stream is asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) groups: Groups,
    pub(super) queries: Vec<InWords>,
}

/// Reads `?group=a&after=EPOCH:OFFSET&group=b&query=q&param.origin=JFK` and `Last-Event-ID`. The header wins: a browser
/// that comes back repeats the address that it began with.
///
/// # Errors
/// 422 without a group or query or with a bad name, 403 for the group of a live query, 400 for anything else.
pub(super) fn read(uri: &Uri, headers: &HeaderMap, groups_max: usize) -> Result<Wanted, Problem> {
    let mut wanted = of_address(uri, groups_max)?;
    if let Some(id) = last_event_id(headers)? {
        go_on(&mut wanted, id)?;
    }
    Ok(wanted)
}

/// As [`read`], in types that others have.
#[cfg(feature = "fuzzing")]
pub(crate) fn asked(uri: &Uri, headers: &HeaderMap, groups_max: usize) -> Result<crate::fuzzing::Asked, u16> {
    let Wanted { groups, queries } = read(uri, headers, groups_max).map_err(|problem| problem.status().as_u16())?;
    Ok((groups, queries.into_iter().map(|query| (query.name, query.params)).collect()))
}

fn of_address(uri: &Uri, groups_max: usize) -> Result<Wanted, Problem> {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        return Err(bad("the query string cannot be read; write it as in `?group=a&group=b`"));
    };
    let Wanted { mut groups, mut queries } = Wanted::default();
    let mut last = None;
    for (key, value) in pairs {
        match (key.as_str(), last) {
            ("group", _) => {
                let name = GroupName::parse(&value).map_err(Refusal::from)?;
                if name.is_of_live_query() {
                    return Err(Refusal::group_of_live_query(&name).into());
                }
                let known = groups.iter().position(|(group, _)| *group == name);
                last = Some(known.unwrap_or(groups.len()));
                if known.is_none() {
                    groups.push((name, None));
                }
            }
            ("after", None) => return Err(bad("`after` has to follow the `group` it is for")),
            ("after", Some(at)) => {
                let position = value.parse().map_err(|error| bad(format!("`after`: {error}")))?;
                if groups[at].1.replace(position).is_some() {
                    return Err(bad(format!("`after` of group `{}` is there twice; give it once", groups[at].0)));
                }
            }
            ("query", _) => {
                last = None;
                queries.push(InWords { name: value, params: Vec::new() });
            }
            (key, _) => of_query(queries.last_mut(), key, value)?,
        }
        if groups.len() + queries.len() > groups_max {
            return Err(bad(format!("more groups are asked for than the {groups_max} that a connection may be in")));
        }
    }
    if groups.is_empty() && queries.is_empty() {
        return Err(Problem::new(
            ErrorCode::InvalidName,
            "no group is named; name one or more, as in `?group=my_group`",
        ));
    }
    Ok(Wanted { groups, queries })
}

/// `param.origin=JFK`: belongs to the query before it.
fn of_query(query: Option<&mut InWords>, key: &str, value: String) -> Result<(), Problem> {
    let Some(name) = key.strip_prefix("param.") else {
        let key: String = key.chars().take(40).collect();
        let known = "group, after, query, param.NAME";
        return Err(bad(format!("the parameter {key:?} is not known here; known: {known}")));
    };
    let Some(query) = query else { return Err(bad("`param.…` has to follow the `query` it is for")) };
    if query.params.iter().any(|(known, _)| known == name) {
        let name: String = name.chars().take(40).collect();
        return Err(bad(format!("`param.{name}` is there twice for one query; give it once")));
    }
    query.params.push((name.to_owned(), value));
    Ok(())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(LAST_EVENT_ID).into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("`Last-Event-ID` is there twice; send it once"));
    }
    let text = value.to_str().map_err(|_| bad("`Last-Event-ID` has characters that no id of ours has"))?;
    // The standard's id of a client that has seen none.
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn go_on(wanted: &mut Wanted, id: &str) -> Result<(), Problem> {
    let told = |error: &dyn std::fmt::Display| bad(format!("`Last-Event-ID`: {error}"));
    let Wanted { groups, queries } = wanted;
    if let ([(_, after)], []) = (groups.as_mut_slice(), queries.as_slice()) {
        *after = Some(id.parse().map_err(|error: groupcast_protocol::envelope::PositionError| told(&error))?);
        return Ok(());
    }
    let positions = Positions::parse(id, groups.len()).map_err(|error| told(&error))?;
    let asked = groups.iter().filter(|(group, _)| positions.of(group).is_some()).count();
    if asked != positions.len() {
        return Err(told(&"it names a group that is not asked for; it belongs to another stream"));
    }
    for (group, after) in groups.iter_mut() {
        // A group without a position kept no history, and there is nothing to go on with.
        *after = positions.of(group).cloned();
    }
    Ok(())
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(query: &str, id: Option<&'static str>) -> Result<Vec<String>, (u16, String)> {
        let uri = format!("/v1/events?{query}").parse().expect("a good URI");
        let mut headers = HeaderMap::new();
        headers.extend(id.map(|id| (LAST_EVENT_ID, HeaderValue::from_static(id))));
        let shown = |(group, after): (GroupName, Option<Position>)| {
            format!("{group} {}", after.map_or("-".to_owned(), |after| after.to_string()))
        };
        let refused = |problem: Problem| (problem.status().as_u16(), problem.into_detail());
        let query = |query: InWords| format!("{} {:?}", query.name, query.params);
        let all = |wanted: Wanted| {
            wanted.groups.into_iter().map(shown).chain(wanted.queries.into_iter().map(query)).collect()
        };
        read(&uri, &headers, 3).map(all).map_err(refused)
    }

    #[test]
    fn groups_and_where_to_go_on() {
        for (query, id, expected) in [
            ("group=a", None, &["a -"][..]),
            ("group=a&after=x:1", None, &["a x:1"]),
            ("group=a&after=x:1&group=b&group=a", None, &["a x:1", "b -"]),
            ("group=a&group=b&group=a&after=x:1", None, &["a x:1", "b -"]),
            ("group=a&after=x:1", Some("y:2"), &["a y:2"]),
            ("group=a&after=x:1", Some(""), &["a x:1"]),
            ("group=a&after=x:1&group=b&after=x:2", Some("b=y:2"), &["a -", "b y:2"]),
            ("group=a&group=b", Some("b=y:2,a=z:3"), &["a z:3", "b y:2"]),
            ("query=q", None, &["q []"]),
            ("query=q&param.a=1&param.b=x%20y&query=r", None, &["q [(\"a\", \"1\"), (\"b\", \"x y\")]", "r []"]),
            ("group=a&query=q", Some("a=x:1"), &["a x:1", "q []"]),
        ] {
            assert_eq!(
                check(query, id),
                Ok(expected.iter().map(|text| (*text).to_owned()).collect()),
                "{query} {id:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (query, id, status, words) in [
            ("", None, 422, "no group"),
            ("group=", None, 422, "empty"),
            ("group=a!b", None, 422, "'!'"),
            ("grup=a", None, 400, "\"grup\""),
            ("after=x:1&group=a", None, 400, "follow"),
            ("group=a&after=x", None, 400, "not a position"),
            ("group=a&after=x:1&after=x:2", None, 400, "twice"),
            ("group=a&group=b&group=c&group=d", None, 400, "the 3 that"),
            ("group=query.x", None, 403, "live query"),
            ("param.a=1", None, 400, "follow"),
            ("query=q&param.a=1&param.a=2", None, 400, "twice"),
            ("query=q&after=x:1", None, 400, "follow"),
            ("query=q&params=1", None, 400, "param.NAME"),
            ("query=a&query=b&query=c&group=d", None, 400, "the 3 that"),
            ("query=q", Some("x:1"), 400, "Last-Event-ID"),
            ("group=a", Some("a=x:1"), 400, "Last-Event-ID"),
            ("group=a", Some("x:1\t"), 400, "Last-Event-ID"),
            ("group=a&group=b", Some("x:1"), 400, "part 1"),
            ("group=a&group=b", Some("a=x:1,c=x:1"), 400, "not asked for"),
            ("group=a&group=b", Some("a=x:1,b=x:1,c=x:1"), 400, "more than 2"),
        ] {
            let (told, detail) = check(query, id).expect_err(query);
            assert_eq!(told, status, "{query} {id:?}: {detail}");
            assert!(detail.contains(words), "{query} {id:?}: {detail}");
        }
    }
}
