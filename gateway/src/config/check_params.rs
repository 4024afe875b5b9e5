//! The parameters of a query: their names, bounds, and defaults that keep to them.

use toml::Value;

use super::check::Found;
use super::check_auth::NOT_BOUND;
use super::{ParamConfig, ParamKind, QueryConfig};

/// Checks every parameter of a query; `key` makes the key of a field of the query.
pub(super) fn check_params(query: &QueryConfig, key: &dyn Fn(&str) -> String, found: &mut Vec<Found>) {
    for (name, param) in &query.params {
        let key = |last: &str| key(&format!("params.{name}{last}"));
        if !is_parameter_name(name) {
            let rule = "a letter or `_`, then letters, digits and `_`, as SQL's `:name` needs";
            found.push((key(""), format!("`{name}` is not a parameter's name: {rule}")));
        }
        if let Some(claim) = name.strip_prefix("claim_").filter(|claim| NOT_BOUND.contains(claim)) {
            let why = format!(
                "the claim `{claim}` is not bound: it is the gateway's, or changes with each token; bind one of yours, or `claim_sub`"
            );
            found.push((key(""), why));
        }
        if let (Some(min), Some(max)) = (param.min, param.max)
            && min > max
        {
            found.push((key(".max"), format!("{max} is less than min ({min})")));
        }
        if param.kind == ParamKind::Boolean && (param.min.is_some() || param.max.is_some()) {
            found.push((key(".type"), "a boolean has no min and max; take them out".to_owned()));
        }
        if param.values.as_ref().is_some_and(Vec::is_empty) {
            found.push((key(".enum"), "allows no value at all; list some or take it out".to_owned()));
        }
        for (at, value) in param.values.iter().flatten().enumerate() {
            if let Err(message) = fits_kind_and_bounds(param, value) {
                found.push((key(&format!(".enum[{at}]")), message));
            }
        }
        if let Some(Err(message)) = param.default.as_ref().map(|value| fits(param, value)) {
            found.push((key(".default"), message));
        }
    }
}

fn is_parameter_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn fits(param: &ParamConfig, value: &Value) -> Result<(), String> {
    fits_kind_and_bounds(param, value)?;
    match &param.values {
        Some(values) if !values.iter().any(|v| same(v, value)) => Err(format!("{value} is not in its `enum`")),
        _ => Ok(()),
    }
}

fn fits_kind_and_bounds(param: &ParamConfig, value: &Value) -> Result<(), String> {
    let measure = match (param.kind, value) {
        (ParamKind::Text, Value::String(text)) => text.chars().count() as f64,
        (ParamKind::Integer | ParamKind::Real, Value::Integer(number)) => *number as f64,
        (ParamKind::Real, Value::Float(number)) if number.is_finite() => *number,
        (ParamKind::Boolean, Value::Boolean(_)) => return Ok(()),
        (kind, _) => {
            let kind = format!("{kind:?}").to_lowercase();
            return Err(format!("{value} is a {}, and the parameter's type is {kind}", value.type_str()));
        }
    };
    match (param.min, param.max) {
        (Some(min), _) if measure < min => Err(format!("{value} is below min ({min})")),
        (_, Some(max)) if measure > max => Err(format!("{value} is above max ({max})")),
        _ => Ok(()),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Integer(i), Value::Float(f)) | (Value::Float(f), Value::Integer(i)) => *i as f64 == *f,
        _ => a == b,
    }
}
