//! A container's variables, as far as they can be known here.

use k8s_openapi::api::core::v1::{Container, EnvVarSource};

use super::configuration::{self, View};

/// What a container's variables are.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<Variable>,
    /// Some come from where nobody can look (`envFrom` of something that is not among the documents): there may be more.
    pub is_open: bool,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Variable {
    pub name: String,
    /// Its index in the container's `env`; `None`: from `envFrom`.
    pub index: Option<usize>,
    /// `None`: only the cluster knows it.
    pub value: Option<String>,
    pub source: Option<EnvVarSource>,
}

/// The container's variables.
pub fn of(container: &Container, documents: View<'_>) -> Environment {
    let mut environment = Environment::default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let map = from.config_map_ref.as_ref().map(|map| ("ConfigMap", &map.name));
        let secret = from.secret_ref.as_ref().map(|secret| ("Secret", &secret.name));
        let entries = map.or(secret).and_then(|(kind, name)| configuration::entries(kind, name, documents));
        environment.is_open |= entries.is_none();
        for (key, text) in entries.unwrap_or_default() {
            // What a Secret holds is not needed for anything that is told.
            let value = map.is_some().then_some(text.text);
            environment.put(Variable { name: format!("{prefix}{key}"), index: None, value, source: None });
        }
    }
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let source = variable.value_from.clone();
        let map = source.as_ref().and_then(|source| source.config_map_key_ref.as_ref());
        let value = match (&source, map) {
            (None, _) => Some(environment.expand(variable.value.as_deref().unwrap_or_default())),
            (Some(_), Some(key)) => configuration::entries("ConfigMap", &key.name, documents)
                .and_then(|entries| entries.into_iter().find(|(name, _)| *name == key.key))
                .map(|(_, text)| text.text),
            (Some(_), None) => None,
        };
        environment.put(Variable { name: variable.name.clone(), index: Some(index), value, source });
    }
    environment
}

impl Environment {
    fn put(&mut self, variable: Variable) {
        // The later one wins.
        self.variables.retain(|known| known.name != variable.name);
        self.variables.push(variable);
    }

    pub fn get(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|variable| variable.name == name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Its value, where it is known here and nothing in it is left to the cluster.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.get(name)?.value.as_deref().filter(|value| !value.contains("$("))
    }

    /// Replaces `$(NAME)` as the kubelet does; what is not known stays; `$$(` is a plain `$(`.
    pub fn expand(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("$(") {
            let (before, after) = rest.split_at(at);
            let name = after[2..].split_once(')').map(|(name, _)| name);
            match name {
                Some(name) if !before.ends_with('$') && self.value(name).is_some() => {
                    out.push_str(before);
                    out.push_str(self.value(name).unwrap_or_default());
                    rest = &after[2 + name.len() + 1..];
                }
                _ => {
                    out.push_str(before);
                    out.push_str("$(");
                    rest = &after[2..];
                }
            }
        }
        out.push_str(rest);
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn knows_what_stands_there() {
        let container: Container = serde_json::from_value(json!({
            "name": "web",
            "envFrom": [{"configMapRef": {"name": "more"}, "prefix": "P_"}],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)/$(C)/$$(A)/$(P_X)"},
                {"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "t"}}},
                {"name": "M", "valueFrom": {"configMapKeyRef": {"name": "more", "key": "X"}}},
                {"name": "A", "value": "2"},
            ],
        }))
        .expect("a container");
        let documents = crate::document::read("t", 0, "kind: ConfigMap\nmetadata: {name: more}\ndata: {X: from-map}\n")
            .expect("YAML");
        let view = View { all: &documents, namespace: None };
        let environment = of(&container, view);
        assert!(!environment.is_open && environment.has("T") && !environment.has("C"));
        assert_eq!((environment.value("A"), environment.value("M")), (Some("2"), Some("from-map")));
        assert_eq!(
            (environment.value("P_X"), environment.value("T"), environment.value("B")),
            (Some("from-map"), None, None)
        );
        assert_eq!(environment.expand("$(A)$(A) $(Z) $(A"), "22 $(Z) $(A");
        assert!(of(&container, View { all: &[], namespace: None }).is_open);
    }
}
