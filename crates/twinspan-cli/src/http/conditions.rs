//! The network conditions as a page sends and shows them.

use std::time::Duration;

use serde_json::{Map, Value, json};
use thiserror::Error;
use twinspan_core::link::{Conditions, DELAY_MAX};

/// The fields that a page sets, in the order in which they are checked.
const NAMES: [&str; 5] = ["loss", "delay_ms", "jitter_ms", "duplicate", "reorder"];

/// Why conditions were refused; the text is one line and says what would be right.
#[derive(Debug, Clone, PartialEq, Error)]
pub(super) enum ConditionsRefused {
    /// The body was no JSON.
    #[error("the body is not JSON: {reason}")]
    NotJson {
        /// What the parser met.
        reason: String,
    },
    /// The body was JSON of another shape.
    #[error("the body must be a JSON object like {{\"preset\":\"wifi\"}} or one with all fields")]
    NotAnObject,
    /// A field that does not exist.
    #[error("unknown field {name:?}: there are loss, delay_ms, jitter_ms, duplicate, reorder")]
    UnknownField {
        /// The field's name.
        name: String,
    },
    /// A preset that does not exist.
    #[error("unknown preset {name:?}: there are clean, wifi, mobile")]
    UnknownPreset {
        /// The preset's name.
        name: String,
    },
    /// A preset together with something else.
    #[error("a preset stands alone: send the preset or the five fields")]
    PresetAndFields,
    /// A field is absent.
    #[error("{name} is missing: send all of loss, delay_ms, jitter_ms, duplicate, reorder")]
    Missing {
        /// The field's name.
        name: &'static str,
    },
    /// A field is no number.
    #[error("{name} must be a number")]
    NotANumber {
        /// The field's name.
        name: &'static str,
    },
    /// A field is out of range.
    #[error("{name} must be between 0 and {max}, got {value}")]
    OutOfRange {
        /// The field's name.
        name: &'static str,
        /// What was asked for.
        value: f64,
        /// The largest value allowed.
        max: f64,
    },
}

/// Reads the body of `POST /api/conditions`: a preset by name, or all five fields and no limit of
/// the rate.
pub(super) fn parse(body: &[u8]) -> Result<Conditions, ConditionsRefused> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| ConditionsRefused::NotJson { reason: error.to_string() })?;
    let Value::Object(fields) = value else {
        return Err(ConditionsRefused::NotAnObject);
    };
    if let Some(preset) = fields.get("preset") {
        if fields.len() > 1 {
            return Err(ConditionsRefused::PresetAndFields);
        }
        let name = preset.as_str().ok_or(ConditionsRefused::NotAnObject)?;
        return Conditions::preset(name)
            .ok_or_else(|| ConditionsRefused::UnknownPreset { name: brief(name) });
    }
    if let Some(name) = fields.keys().find(|name| !NAMES.contains(&name.as_str())) {
        return Err(ConditionsRefused::UnknownField { name: brief(name) });
    }
    let [loss, delay, jitter, duplicate, reorder] = NAMES;
    Ok(Conditions {
        loss: number(&fields, loss, 1.0)?,
        delay: duration(&fields, delay)?,
        jitter: duration(&fields, jitter)?,
        duplicate: number(&fields, duplicate, 1.0)?,
        reorder: number(&fields, reorder, 1.0)?,
        ..Conditions::CLEAN
    })
}

fn number(
    fields: &Map<String, Value>,
    name: &'static str,
    max: f64,
) -> Result<f64, ConditionsRefused> {
    let value = fields.get(name).ok_or(ConditionsRefused::Missing { name })?;
    let value = value.as_f64().ok_or(ConditionsRefused::NotANumber { name })?;
    // Written so that NaN, which compares with nothing, would be refused too.
    if !(0.0..=max).contains(&value) {
        return Err(ConditionsRefused::OutOfRange { name, value, max });
    }
    Ok(value)
}

fn duration(
    fields: &Map<String, Value>,
    name: &'static str,
) -> Result<Duration, ConditionsRefused> {
    let millis = number(fields, name, in_millis(DELAY_MAX))?;
    // In range, so neither negative nor beyond what nanoseconds in 64 bits can say.
    Ok(Duration::from_nanos((millis * 1e6).round() as u64))
}

fn in_millis(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

/// Enough of a sender's word to recognise it; the reply does not echo kilobytes.
fn brief(text: &str) -> String {
    text.chars().take(32).collect()
}

/// The conditions in the units of the page, and the preset they are, if they are one.
pub(super) fn to_json(conditions: &Conditions) -> Value {
    let preset = Conditions::PRESETS.iter().find(|(_, preset)| preset == conditions);
    json!({
        "now": {
            "loss": conditions.loss,
            "delay_ms": in_millis(conditions.delay),
            "jitter_ms": in_millis(conditions.jitter),
            "duplicate": conditions.duplicate,
            "reorder": conditions.reorder,
            "rate_bytes_per_s": conditions.rate_bytes_per_s,
        },
        "preset": preset.map(|(name, _)| name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> String {
        parse(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn five_fields_are_read() {
        let body = br#"{"loss":0.2,"delay_ms":40,"jitter_ms":0.5,"duplicate":0.01,"reorder":1}"#;
        let wanted = Conditions {
            loss: 0.2,
            delay: Duration::from_millis(40),
            jitter: Duration::from_micros(500),
            duplicate: 0.01,
            reorder: 1.0,
            ..Conditions::CLEAN
        };
        assert_eq!(parse(body), Ok(wanted));
        assert_eq!(
            to_json(&wanted).to_string(),
            concat!(
                r#"{"now":{"delay_ms":40.0,"duplicate":0.01,"jitter_ms":0.5,"loss":0.2,"#,
                r#""rate_bytes_per_s":0,"reorder":1.0},"preset":null}"#
            )
        );
    }

    #[test]
    fn presets_are_read_and_recognised() {
        for (name, preset) in Conditions::PRESETS {
            let body = format!("{{\"preset\":\"{name}\"}}");
            assert_eq!(parse(body.as_bytes()), Ok(preset));
            assert_eq!(to_json(&preset)["preset"], name);
        }
    }

    #[test]
    fn every_refusal_is_one_line_that_names_the_fault() {
        for (body, said) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[]", "must be a JSON object"),
            ("3", "must be a JSON object"),
            (r#"{"preset":3}"#, "must be a JSON object"),
            (r#"{"preset":"moon"}"#, "unknown preset \"moon\": there are clean, wifi, mobile"),
            (r#"{"preset":"wifi","loss":0}"#, "a preset stands alone"),
            (r#"{"lost":0}"#, "unknown field \"lost\""),
            (r#"{"loss":0}"#, "delay_ms is missing"),
            (r#"{"loss":"1"}"#, "loss must be a number"),
            (
                r#"{"loss":1.5,"delay_ms":0,"jitter_ms":0,"duplicate":0,"reorder":0}"#,
                "loss must be between 0 and 1, got 1.5",
            ),
            (
                r#"{"loss":0,"delay_ms":99999,"jitter_ms":0,"duplicate":0,"reorder":0}"#,
                "delay_ms must be between 0 and 60000, got 99999",
            ),
            (
                r#"{"loss":0,"delay_ms":0,"jitter_ms":-1,"duplicate":0,"reorder":0}"#,
                "jitter_ms must be between 0 and 60000, got -1",
            ),
        ] {
            let text = refusal(body);
            assert!(text.contains(said), "{body} gave {text:?}");
            assert!(!text.contains('\n'));
        }
    }

    #[test]
    fn a_long_word_is_not_echoed_whole() {
        let body = format!("{{\"preset\":\"{}\"}}", "x".repeat(3_000));
        assert!(refusal(&body).len() < 120);
    }
}
