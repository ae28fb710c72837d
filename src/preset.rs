//! What boathook knows about well-known servers: `[app] preset = "nginx"`. Each is a configuration of its own in
//! `config/presets/`, in the words that a user would write, and gives what the user has not written. What they mean is left
//! to `config`; printing one as the start of a configuration is left to `init`.

use crate::{config::is_near, embedded};

/// All of them, those that are asked for most first.
pub const NAMES: [&str; 16] = [
    "nginx",
    "apache",
    "haproxy",
    "caddy",
    "lighttpd",
    "varnish",
    "php-fpm",
    "gunicorn",
    "uvicorn",
    "puma",
    "node",
    "go",
    "tomcat",
    "spring-boot",
    "envoy",
    "traefik",
];

/// A preset: its name and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    pub name: String,
    pub text: String,
}

/// The preset of this name.
///
/// # Errors
/// There is none: what is wrong, and which there are.
pub fn find(name: &str) -> Result<Preset, (String, String)> {
    if let Some((name, text)) = embedded::presets().into_iter().find(|(found, _)| found == name) {
        return Ok(Preset { name, text });
    }
    let near = NAMES.iter().find(|known| is_near(name, known));
    let near = near.map(|near| format!("did you mean \"{near}\"? ")).unwrap_or_default();
    Err((format!("there is no preset `{name}`"), format!("{near}known are: {}", NAMES.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_name_and_helps_with_slips() {
        assert_eq!(find("nginx").map(|preset| preset.name), Ok("nginx".into()));
        for (name, near) in [("ngnix", "did you mean \"nginx\"? known are: nginx"), ("iis", "known are: nginx")] {
            let (what, help) = find(name).expect_err(name);
            assert_eq!(what, format!("there is no preset `{name}`"));
            assert!(help.starts_with(near), "{help}");
        }
    }

    #[test]
    fn each_says_in_a_few_lines_where_it_comes_from() {
        let (mut found, mut named) = (embedded::presets(), NAMES);
        found.sort();
        named.sort_unstable();
        assert!(
            found.iter().map(|(name, _)| name.as_str()).eq(named),
            "every file is named, and every name has a file"
        );
        for (name, text) in found {
            assert!(text.starts_with("# "), "{name}: no head comment");
            assert!(text.len() <= 2000, "{name}: {} bytes are too many", text.len());
            assert!(text.contains("https://"), "{name}: no source");
            let is_told = ["Tested with ", "Untested"].iter().any(|word| text.contains(word));
            assert!(is_told, "{name}: tested with which version, or untested?");
            assert!(text.lines().all(|line| line.len() <= 120), "{name}: a line is too long");
        }
    }
}
