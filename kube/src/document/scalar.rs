//! What a scalar means to the API server: it reads YAML by go-yaml v2's rules (`sigs.k8s.io/yaml`, `resolve.go` there),
//! which are those of YAML 1.1 with some of its own, and then takes it through JSON.

use saphyr_parser::{ScalarStyle, Tag};
use serde_json::{Number, Value};

/// The value of a scalar as it was written.
///
/// # Errors
/// JSON has no such value.
pub fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let plain = match tag {
        None => style == ScalarStyle::Plain,
        Some(tag) if tag.is_yaml_core_schema() => matches!(&*tag.suffix, "int" | "float" | "bool" | "null"),
        Some(_) => false,
    };
    if plain { plain_value(text) } else { Ok(text.into()) }
}

fn plain_value(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Ok(true.into()),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Ok(false.into());
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => return Err(format!("`{text}` is no number that Kubernetes can take")),
        _ => {}
    }
    if !text.starts_with(['+', '-', '.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        return Ok(text.into());
    }
    let digits = text.replace('_', "");
    Ok(whole(&digits).or_else(|| fraction(&digits)).map_or_else(|| text.into(), Value::Number))
}

/// As Go's `strconv.ParseInt` with base 0: `0x`, `0o`, `0b` say their base, and so does a leading zero (octal).
fn whole(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (digits, base) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', b'o' | b'O', ..] => (&digits[2..], 8),
        [b'0', b'b' | b'B', ..] => (&digits[2..], 2),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    // Rust's own parser would take one more sign here.
    if !digits.starts_with(|c: char| c.is_digit(base)) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, base).ok()?);
    Number::from_i128(if negative { -value } else { value })
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`; one without a fraction reaches the API server as a whole
/// number, because that is how Go writes it as JSON.
fn fraction(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !unsigned.bytes().all(|c| matches!(c, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        || !unsigned.starts_with(|c: char| c.is_ascii_digit())
            && !unsigned[1..].starts_with(|c: char| c.is_ascii_digit())
    {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    // Above this not every whole number has its float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "it is a whole number below 2^53")]
        return Some((value as i64).into());
    }
    Number::from_f64(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_mean_what_the_api_server_reads() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("null", json!(null)),
            ("yes", json!(true)),
            ("y", json!(true)),
            ("On", json!(true)),
            ("off", json!(false)),
            ("N", json!(false)),
            ("nO", json!("nO")),
            ("30", json!(30)),
            ("-1", json!(-1)),
            ("+5", json!(5)),
            ("30.0", json!(30)),
            ("1e3", json!(1000)),
            ("1_000", json!(1000)),
            ("0777", json!(511)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("-0b101", json!(-5)),
            ("08", json!(8)),
            ("0.5", json!(0.5)),
            (".5", json!(0.5)),
            ("5.", json!(5)),
            ("18446744073709551615", json!(u64::MAX)),
            ("100m", json!("100m")),
            ("1.2.3", json!("1.2.3")),
            ("128Mi", json!("128Mi")),
            ("2001-01-01", json!("2001-01-01")),
            ("--5", json!("--5")),
            ("-+5", json!("-+5")),
            ("0x", json!("0x")),
            ("-", json!("-")),
            (".", json!(".")),
            ("..", json!("..")),
            ("+", json!("+")),
            ("é", json!("é")),
        ] {
            assert_eq!(plain_value(text), Ok(value), "{text}");
        }
        assert_eq!(plain_value(".inf"), Err("`.inf` is no number that Kubernetes can take".into()));
    }

    #[test]
    fn quotes_and_tags_decide() {
        let tag = |suffix: &str| Tag { handle: "tag:yaml.org,2002:".into(), suffix: suffix.into() };
        assert_eq!(resolve("yes", ScalarStyle::SingleQuoted, None), Ok(json!("yes")));
        assert_eq!(resolve("1", ScalarStyle::Literal, None), Ok(json!("1")));
        assert_eq!(resolve("1", ScalarStyle::Plain, Some(&tag("str"))), Ok(json!("1")));
        assert_eq!(resolve("1", ScalarStyle::DoubleQuoted, Some(&tag("int"))), Ok(json!(1)));
    }
}
