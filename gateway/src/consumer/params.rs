//! The typed parameters of a named query: what may be asked, and what SQL is given.

use std::collections::BTreeMap;

use groupcast_protocol::{ErrorCode, Refusal};
use serde_json::value::RawValue;

use super::nearest::known;
use crate::config::query::{ParamConfig, ParamKind};

/// Parameters as a client gave them: JSON by name.
pub(crate) type Given = BTreeMap<String, Box<RawValue>>;

/// A value as SQL is given it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SqlValue {
    Text(String),
    Integer(i64),
    Real(f64),
}

/// A value for each parameter, by name.
pub(crate) type Bound = Vec<(String, SqlValue)>;

/// One parameter.
#[derive(Debug, Clone)]
pub(crate) struct Param {
    name: String,
    kind: ParamKind,
    values: Option<Vec<SqlValue>>,
    min: Option<f64>,
    max: Option<f64>,
    default: Option<SqlValue>,
}

impl Param {
    /// Reads a parameter's configuration.
    ///
    /// # Errors
    /// A sentence, when its values do not fit its type.
    pub(crate) fn new(name: &str, config: &ParamConfig) -> Result<Self, String> {
        let fits = |value: &toml::Value| from_toml(config.kind, value);
        let values = config.values.as_ref().map(|all| all.iter().map(fits).collect::<Result<Vec<_>, _>>());
        let param = Self {
            name: name.to_owned(),
            kind: config.kind,
            values: values.transpose()?,
            min: config.min,
            max: config.max,
            default: config.default.as_ref().map(fits).transpose()?,
        };
        if let Some(default) = &param.default {
            param.check(default).map_err(|why| format!("its default {why}"))?;
        }
        Ok(param)
    }

    /// A value that came as words, as in the query string of an address.
    fn read_words(&self, words: &str) -> Option<Box<RawValue>> {
        match self.kind {
            ParamKind::Text => None,
            ParamKind::Integer | ParamKind::Real | ParamKind::Boolean => RawValue::from_string(words.to_owned()).ok(),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn bind(&self, given: Option<&RawValue>) -> Result<SqlValue, Refusal> {
        let refused = |why: String| Refusal::new(ErrorCode::BadParams, format!("parameter `{}` {why}", self.name));
        let Some(given) = given else {
            let missing = || refused(format!("is missing; it is {}", self.expected()));
            return self.default.clone().ok_or_else(missing);
        };
        let value = from_json(self.kind, given.get())
            .ok_or_else(|| refused(format!("is {}, but must be {}", shorten(given.get()), self.expected())))?;
        self.check(&value).map_err(refused)?;
        Ok(value)
    }

    fn check(&self, value: &SqlValue) -> Result<(), String> {
        if self.values.as_ref().is_some_and(|values| !values.contains(value)) {
            return Err(format!("is {}, but must be {}", shorten(&show(value)), self.expected()));
        }
        let (size, what) = match value {
            SqlValue::Text(text) => (text.chars().count() as f64, " characters long"),
            SqlValue::Integer(n) => (*n as f64, ""),
            SqlValue::Real(n) => (*n, ""),
        };
        match (self.min, self.max) {
            (Some(min), _) if size < min => Err(format!("is {size}{what}, but must be at least {min}{what}")),
            (_, Some(max)) if size > max => Err(format!("is {size}{what}, but must be at most {max}{what}")),
            _ => Ok(()),
        }
    }

    fn expected(&self) -> String {
        if let Some(values) = &self.values {
            return format!("one of {}", values.iter().map(show).collect::<Vec<_>>().join(", "));
        }
        match self.kind {
            ParamKind::Text => "a text",
            ParamKind::Integer => "an integer",
            ParamKind::Real => "a number",
            ParamKind::Boolean => "true or false",
        }
        .to_owned()
    }
}

/// Gives each parameter its value.
///
/// # Errors
/// `bad_params`, when one is unknown, missing, of the wrong type or out of range.
pub(crate) fn bind(params: &[Param], given: &Given) -> Result<Bound, Refusal> {
    if let Some(unknown) = given.keys().find(|name| params.iter().all(|param| param.name != **name)) {
        let known = known(unknown, params.iter().map(Param::name));
        let message = format!("there is no parameter `{}`; {known}", shorten(unknown));
        return Err(Refusal::new(ErrorCode::BadParams, message));
    }
    let bind = |param: &Param| Ok((param.name.clone(), param.bind(given.get(&param.name).map(|raw| &**raw))?));
    params.iter().map(bind).collect()
}

/// The values as one JSON object, by name: the same text for the same values, however they were given.
pub(crate) fn canonical(params: &[Param], bound: &Bound) -> String {
    let show = |(param, (name, value)): (&Param, &(String, SqlValue))| {
        let value = match value {
            SqlValue::Integer(yes) if param.kind == ParamKind::Boolean => serde_json::Value::from(*yes != 0),
            SqlValue::Integer(n) => (*n).into(),
            SqlValue::Real(n) => (*n).into(),
            SqlValue::Text(text) => text.as_str().into(),
        };
        format!("{}:{value}", serde_json::Value::from(name.as_str()))
    };
    // As `bind` gives them: one value for each parameter, in the same order.
    format!("{{{}}}", params.iter().zip(bound).map(show).collect::<Vec<_>>().join(","))
}

/// Parameters that came as words, each as JSON of its type. What is of no type of theirs is a text, which `bind` refuses
/// with the reason.
pub(crate) fn read_words(params: &[Param], words: &[(String, String)]) -> Given {
    let read = |(name, words): &(String, String)| {
        let param = params.iter().find(|param| param.name == *name);
        let as_text = || serde_json::value::to_raw_value(words).expect("a text is JSON");
        (name.clone(), param.and_then(|param| param.read_words(words)).unwrap_or_else(as_text))
    };
    words.iter().map(read).collect()
}

fn from_json(kind: ParamKind, json: &str) -> Option<SqlValue> {
    match kind {
        ParamKind::Text => serde_json::from_str(json).ok().map(SqlValue::Text),
        ParamKind::Integer => serde_json::from_str(json).ok().map(SqlValue::Integer),
        // The nearest number there is, which serde_json's own reading may miss by a digit: what is shown is to read back the same.
        ParamKind::Real => json.parse().ok().filter(|n: &f64| n.is_finite()).map(SqlValue::Real),
        ParamKind::Boolean => serde_json::from_str(json).ok().map(|yes: bool| SqlValue::Integer(i64::from(yes))),
    }
}

fn from_toml(kind: ParamKind, value: &toml::Value) -> Result<SqlValue, String> {
    let shown = || serde_json::to_string(value).unwrap_or_default();
    match (kind, value) {
        (ParamKind::Text, toml::Value::String(text)) => Ok(SqlValue::Text(text.clone())),
        (ParamKind::Integer, toml::Value::Integer(n)) => Ok(SqlValue::Integer(*n)),
        (ParamKind::Real, toml::Value::Integer(n)) => Ok(SqlValue::Real(*n as f64)),
        (ParamKind::Real, toml::Value::Float(n)) if n.is_finite() => Ok(SqlValue::Real(*n)),
        (ParamKind::Boolean, toml::Value::Boolean(yes)) => Ok(SqlValue::Integer(i64::from(*yes))),
        (ParamKind::Text, _) => Err(format!("{} is not a text", shown())),
        (ParamKind::Integer, _) => Err(format!("{} is not an integer", shown())),
        (ParamKind::Real, _) => Err(format!("{} is not a number", shown())),
        (ParamKind::Boolean, _) => Err(format!("{} is not true or false", shown())),
    }
}

fn show(value: &SqlValue) -> String {
    match value {
        SqlValue::Text(text) => format!("{text:?}"),
        SqlValue::Integer(n) => n.to_string(),
        SqlValue::Real(n) => n.to_string(),
    }
}

/// What a client sent is repeated to him, but not all of it.
fn shorten(text: &str) -> String {
    if text.chars().count() <= 60 {
        text.to_owned()
    } else {
        format!("{}…", text.chars().take(60).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &str, given: &str) -> Result<SqlValue, String> {
        let config: ParamConfig = toml::from_str(config).expect("a parameter");
        let param = Param::new("p", &config)?;
        let given: Given = serde_json::from_str(given).expect("an object");
        bind(&[param], &given).map(|mut all| all.remove(0).1).map_err(|refusal| {
            assert_eq!(refusal.code, ErrorCode::BadParams);
            refusal.message
        })
    }

    #[test]
    fn values_of_the_right_type_pass() {
        let text = |text: &str| Ok(SqlValue::Text(text.into()));
        assert_eq!(check(r#"type = "text""#, r#"{"p":"a\u00e9"}"#), text("aé"));
        assert_eq!(check(r#"type = "integer""#, r#"{"p":-9223372036854775808}"#), Ok(SqlValue::Integer(i64::MIN)));
        assert_eq!(check(r#"type = "real""#, r#"{"p":3}"#), Ok(SqlValue::Real(3.0)));
        assert_eq!(check(r#"type = "boolean""#, r#"{"p":true}"#), Ok(SqlValue::Integer(1)));
        assert_eq!(check("type = \"text\"\nenum = [\"JFK\"]\ndefault = \"JFK\"", "{}"), text("JFK"));
    }

    #[test]
    fn values_of_the_wrong_type_are_refused() {
        for (kind, given) in [
            ("text", "7"),
            ("text", "null"),
            ("integer", "1.5"),
            ("integer", "1e3"),
            ("integer", "\"1\""),
            ("integer", "9223372036854775808"),
            ("real", "\"NaN\""),
            ("real", "1e999"),
            ("boolean", "1"),
        ] {
            let refused = check(&format!("type = {kind:?}"), &format!(r#"{{"p":{given}}}"#));
            assert!(refused.as_ref().is_err_and(|text| text.contains("`p`")), "{kind} {given}: {refused:?}");
        }
    }

    #[test]
    fn ranges_and_choices_are_kept() {
        for (config, good, bad) in [
            ("type = \"integer\"\nmin = 1\nmax = 9", "9", "10"),
            ("type = \"integer\"\nmin = 1", "1", "0"),
            ("type = \"real\"\nmax = 0.5", "0.5", "0.6"),
            ("type = \"text\"\nmin = 1\nmax = 3", "\"äöü\"", "\"\""),
            ("type = \"text\"\nenum = [\"a\", \"b\"]", "\"b\"", "\"c\""),
        ] {
            assert!(check(config, &format!(r#"{{"p":{good}}}"#)).is_ok(), "{config}");
            assert!(check(config, &format!(r#"{{"p":{bad}}}"#)).is_err(), "{config}");
        }
    }

    #[test]
    fn unknown_and_missing_ones_are_named() {
        let unknown = check(r#"type = "text""#, r#"{"q":"x"}"#);
        assert_eq!(unknown, Err("there is no parameter `q`; did you mean `p`? known are `p`".into()));
        assert!(check(r#"type = "text""#, "{}").is_err_and(|text| text.contains("missing")));
    }

    #[test]
    fn the_same_values_are_the_same_text() {
        let param =
            |name: &str, config: &str| Param::new(name, &toml::from_str(config).expect("valid")).expect("valid");
        let params = [
            param("a", "type = \"boolean\""),
            param("b", "type = \"integer\"\ndefault = 7"),
            param("c", "type = \"real\""),
            param("d", "type = \"text\""),
        ];
        for given in [r#"{"a":true,"b":7,"c":1,"d":"\u0041\n"}"#, r#"{ "d": "A\n", "c": 1.0, "a": true }"#] {
            let bound = bind(&params, &serde_json::from_str(given).expect("an object")).expect("good values");
            assert_eq!(canonical(&params, &bound), r#"{"a":true,"b":7,"c":1.0,"d":"A\n"}"#);
        }
    }

    #[test]
    fn a_number_is_the_nearest_there_is() {
        let param = Param::new("r", &toml::from_str("type = \"real\"").expect("valid")).expect("valid");
        let many = format!(r#"{{"r":{}e-324}}"#, "5".repeat(81));
        let bound = |text: &str| {
            let given = serde_json::from_str(text).expect("an object");
            bind(std::slice::from_ref(&param), &given).expect("good values")
        };
        let told = canonical(std::slice::from_ref(&param), &bound(&many));
        assert_eq!(told, r#"{"r":5.5555555555555555e-244}"#);
        assert_eq!(bound(&told), bound(&many));
    }

    #[test]
    fn words_are_read_by_the_type_of_their_parameter() {
        let read = |kind: &str, words: &str| {
            let param = Param::new("p", &toml::from_str(&format!("type = {kind:?}")).expect("valid")).expect("valid");
            let params = [param];
            let given = read_words(&params, &[("p".to_owned(), words.to_owned())]);
            bind(&params, &given).map(|mut all| all.remove(0).1).map_err(|refusal| refusal.code)
        };
        assert_eq!(read("text", "7"), Ok(SqlValue::Text("7".into())));
        assert_eq!(read("text", "\"quoted\""), Ok(SqlValue::Text("\"quoted\"".into())));
        assert_eq!(read("integer", "7"), Ok(SqlValue::Integer(7)));
        assert_eq!(read("real", "1.5"), Ok(SqlValue::Real(1.5)));
        assert_eq!(read("boolean", "true"), Ok(SqlValue::Integer(1)));
        for (kind, words) in [("integer", "seven"), ("integer", ""), ("real", "[1]"), ("boolean", "1")] {
            assert_eq!(read(kind, words), Err(ErrorCode::BadParams), "{kind} {words}");
        }
    }

    #[test]
    fn a_configuration_that_contradicts_itself_is_refused() {
        assert!(check("type = \"integer\"\ndefault = \"x\"", "{}").is_err());
        assert!(check("type = \"integer\"\nmin = 5\ndefault = 1", "{}").is_err());
        assert!(check("type = \"text\"\nenum = [1]", "{}").is_err());
    }
}
