//! A pod's specification by Kubernetes' own types. What Kubernetes would refuse is a finding, and is left out; so is a
//! misspelt key, which the API server drops or refuses.

use std::marker::PhantomData;

use boathook::{config::is_near, duration::parse_duration};
use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe};
use serde::{
    Deserializer,
    de::{DeserializeOwned, Error as _, Visitor, value::Error},
    forward_to_deserialize_any,
};
use serde_json::{Value, json};

use super::words;
use crate::path::{Path, Segment};

/// Nobody reads more of them; beyond it the document is something else.
const MOST: usize = 50;

/// A field that Kubernetes would refuse.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// From the document's root.
    pub path: Path,
    /// `the text "30", and a whole number belongs here`
    pub what: String,
    /// What the same would be in the right type, where that is plain.
    pub instead: Option<Value>,
}

/// A key that no field has.
#[derive(Clone, Debug, PartialEq)]
pub struct Misspelt {
    /// Of the mapping that holds it.
    pub path: Path,
    pub key: String,
    pub meant: &'static str,
}

/// Reads a specification that stands at `path`.
pub fn read(value: &Value, path: &Path) -> (PodSpec, Vec<Wrong>) {
    let mut value = value.clone();
    let mut wrong = Vec::new();
    for _ in 0..MOST {
        let error = match serde_path_to_error::deserialize::<_, PodSpec>(&value) {
            Ok(spec) => return (spec, wrong),
            Err(error) => error,
        };
        let inner: Vec<Segment> = error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                serde_path_to_error::Segment::Map { key } => Some(Segment::Key(key.clone())),
                serde_path_to_error::Segment::Seq { index } => Some(Segment::Index(*index)),
                _ => None,
            })
            .collect();
        let Some(place) = at_mut(&mut value, &inner) else { break };
        let key = inner.iter().rev().find_map(|segment| match segment {
            Segment::Key(key) => Some(key.as_str()),
            Segment::Index(_) => None,
        });
        let (what, instead) = explain(key.unwrap_or_default(), place, &error.inner().to_string());
        if *place == Value::Null || place == instead.as_ref().unwrap_or(&Value::Null) {
            break;
        }
        *place = instead.clone().unwrap_or(Value::Null);
        let mut whole = path.clone();
        whole.0.extend(inner);
        wrong.push(Wrong { path: whole, what, instead });
    }
    (PodSpec::default(), wrong)
}

fn at_mut<'v>(value: &'v mut Value, path: &[Segment]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |value, segment| match segment {
        Segment::Key(key) => value.get_mut(key),
        Segment::Index(index) => value.get_mut(index),
    })
}

/// serde's words turned into Kubernetes' and the user's, and what was probably meant.
fn explain(key: &str, found: &Value, message: &str) -> (String, Option<Value>) {
    let expected = message.rsplit_once(", expected ").map_or("", |(_, expected)| expected);
    let expected = expected.split(" at line ").next().unwrap_or_default();
    let (wanted, instead) = match expected {
        "i64" | "i32" | "u64" | "u32" => {
            let whole = |text: &str| text.trim().parse::<u64>().ok();
            // `45s`, as durations are written elsewhere.
            let seconds = |text: &str| Some(parse_duration(text).ok()?.as_secs()).filter(|_| key.ends_with("Seconds"));
            ("a whole number", found.as_str().and_then(|text| whole(text).or_else(|| seconds(text))).map(Value::from))
        }
        "a string" => (
            "text",
            match found {
                Value::Number(number) => Some(number.to_string().into()),
                Value::Bool(truth) => Some(truth.to_string().into()),
                _ => None,
            },
        ),
        "a boolean" => (
            "true or false",
            match found.as_str() {
                Some("true" | "yes" | "on") => Some(true.into()),
                Some("false" | "no" | "off") => Some(false.into()),
                _ => None,
            },
        ),
        "a sequence" => ("a list", listed(key, found)),
        // Kubernetes' own types are called by their names.
        _ if expected == "a map"
            || expected.starts_with(|c: char| c.is_ascii_uppercase()) && expected != "IntOrString" =>
        {
            ("a mapping", None)
        }
        _ if message.contains("IntOrString") => ("a number or a name", None),
        _ => ("something else", None),
    };
    let shown = match found {
        Value::Null => "nothing".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text \"{text}\""),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    };
    (format!("is {shown}, and {wanted} belongs here"), instead)
}

/// What was meant by a text or a mapping where a list belongs.
fn listed(key: &str, found: &Value) -> Option<Value> {
    match (key, found) {
        // There is no shell that would split it.
        ("command" | "args", Value::String(text)) => {
            let mut commands = words::split(text).into_iter();
            let only = commands.next().filter(|_| commands.next().is_none())?;
            Some(Value::from(only.words))
        }
        ("httpHeaders" | "env", Value::Object(mapping)) => {
            let entry = |(name, value): (&String, &Value)| Some(json!({"name": name, "value": value.as_str()?}));
            mapping.iter().map(entry).collect::<Option<Vec<Value>>>().map(Value::from)
        }
        _ => None,
    }
}

/// Misspelt keys of a container that decide about its hooks and probes.
pub fn misspelt(container: &Value, path: &Path) -> Vec<Misspelt> {
    let mut found = Vec::new();
    look(container, path, fields::<Container>(), &mut found);
    let lifecycle = &container["lifecycle"];
    let at = path.at("lifecycle");
    look(lifecycle, &at, fields::<Lifecycle>(), &mut found);
    for hook in ["postStart", "preStop"] {
        look_into_handler(&lifecycle[hook], &at.at(hook), fields::<LifecycleHandler>(), &mut found);
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        look_into_handler(&container[probe], &path.at(probe), fields::<Probe>(), &mut found);
    }
    found
}

fn look_into_handler(handler: &Value, path: &Path, known: &'static [&'static str], found: &mut Vec<Misspelt>) {
    look(handler, path, known, found);
    look(&handler["httpGet"], &path.at("httpGet"), fields::<HTTPGetAction>(), found);
    look(&handler["exec"], &path.at("exec"), fields::<ExecAction>(), found);
}

fn look(value: &Value, path: &Path, known: &'static [&'static str], found: &mut Vec<Misspelt>) {
    for key in value.as_object().into_iter().flat_map(|mapping| mapping.keys()) {
        // `$patch` and `$setElementOrder` steer a strategic merge.
        if known.contains(&key.as_str()) || key.starts_with('$') {
            continue;
        }
        let plain = key.to_ascii_lowercase().replace(['-', '_'], "");
        let same = known.iter().find(|name| name.to_ascii_lowercase() == plain);
        if let Some(meant) = same.or_else(|| known.iter().find(|name| is_near(&plain, &name.to_ascii_lowercase()))) {
            found.push(Misspelt { path: path.clone(), key: key.clone(), meant });
        }
    }
}

/// The fields of one of Kubernetes' types, as they are called in YAML.
fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    let _ = T::deserialize(Fields(&mut fields, PhantomData));
    fields
}

/// Asked for a struct, notes the names of its fields and gives nothing.
struct Fields<'f, 'de>(&'f mut &'static [&'static str], PhantomData<&'de ()>);

impl<'de> Deserializer<'de> for Fields<'_, 'de> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("only the fields"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("only the fields"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

/// Reads one part by its type; what does not fit is nothing.
pub fn part<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_kubernetes_would_refuse_is_told_and_left_out() {
        let value = json!({
            "terminationGracePeriodSeconds": "45",
            "hostNetwork": "yes",
            "containers": [{
                "name": "web",
                "env": [{"name": "PORT", "value": 8080}, {"name": "ON", "value": true}],
                "command": "/boathook run -- x",
                "lifecycle": {"preStop": {"httpGet": "/shutdown"}, "postStart": []},
                "livenessProbe": {"periodSeconds": 1.5, "httpGet": {"port": true}},
            }],
        });
        let (spec, wrong) = read(&value, &Path::default().at("spec"));
        let mut told: Vec<String> = wrong.iter().map(|wrong| format!("{}: {}", wrong.path, wrong.what)).collect();
        told.sort();
        assert_eq!(
            told,
            [
                "spec.containers[0].command: is the text \"/boathook run -- x\", and a list belongs here",
                "spec.containers[0].env[0].value: is the number 8080, and text belongs here",
                "spec.containers[0].env[1].value: is true, and text belongs here",
                "spec.containers[0].lifecycle.postStart: is a list, and a mapping belongs here",
                "spec.containers[0].lifecycle.preStop.httpGet: is the text \"/shutdown\", and a mapping belongs here",
                "spec.containers[0].livenessProbe.httpGet.port: is true, and a number or a name belongs here",
                "spec.containers[0].livenessProbe.periodSeconds: is the number 1.5, and a whole number belongs here",
                "spec.hostNetwork: is the text \"yes\", and true or false belongs here",
                "spec.terminationGracePeriodSeconds: is the text \"45\", and a whole number belongs here",
            ]
        );
        assert_eq!((spec.termination_grace_period_seconds, spec.host_network), (Some(45), Some(true)));
        assert_eq!(spec.containers[0].env.as_ref().map(Vec::len), Some(2));
        assert_eq!(read(&json!({"containers": [{"name": "a", "unknown": {}}]}), &Path::default()).1, []);
        assert_eq!(read(&json!({"containers": null, "volumes": null}), &Path::default()).1, []);
    }

    #[test]
    fn misspelt_keys_are_seen_and_own_ones_are_not() {
        let value = json!({
            "livenessprobe": {},
            "lifecycle": {"preStopp": {}, "postStart": {"httpget": {}, "exec": {"comand": []}}, "$patch": "merge"},
            "readinessProbe": {"httpGet": {"headers": [], "http-headers": []}, "periodSecond": 1},
            "x-kubernetes": 1,
        });
        let found: Vec<String> = misspelt(&value, &Path::default().at("c"))
            .into_iter()
            .map(|found| format!("{} {} {}", found.path, found.key, found.meant))
            .collect();
        assert_eq!(
            found,
            [
                "c livenessprobe livenessProbe",
                "c.lifecycle preStopp preStop",
                "c.lifecycle.postStart httpget httpGet",
                "c.lifecycle.postStart.exec comand command",
                "c.readinessProbe periodSecond periodSeconds",
                "c.readinessProbe.httpGet http-headers httpHeaders",
            ]
        );
    }
}
