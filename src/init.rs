//! `boathook init`: a complete configuration to start from, for the server that `--preset` names or that the main command
//! shows. What a preset says is left to its file; this looks, puts together and prints.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::{
    command::print,
    exit,
    fatal::Fatal,
    preset::{self, Preset},
    sys::file::read_start_of_regular,
};

/// How every configuration begins.
const BEGIN: &str = include_str!("../config/init.toml");
/// How it goes on for a server that nobody knows.
const UNKNOWN: &str = include_str!("../config/init-unknown.toml");

/// As many random bytes as nobody guesses.
const TOKEN: usize = 32;
/// What is beyond does not say which server it is.
const LONGEST_COMMAND: usize = 64 << 10;
/// Go's own linker puts its note into the first page of a program; others put it a little later.
const NOTE_WITHIN: usize = 64 << 10;
/// An ELF note of Go's linker: its name's length, its type and its name. In between is the build id's length.
const GO_NOTE: (&[u8], &[u8]) = (b"\x04\0\0\0", b"\x04\0\0\0Go\0\0");

/// How programs are called, up to a version behind it, and their preset.
const PROGRAMS: [(&str, &str); 24] = [
    ("nginx", "nginx"),
    ("openresty", "nginx"),
    ("httpd", "apache"),
    ("apache", "apache"),
    ("haproxy", "haproxy"),
    ("caddy", "caddy"),
    ("lighttpd", "lighttpd"),
    ("varnishd", "varnish"),
    ("php-fpm", "php-fpm"),
    ("gunicorn", "gunicorn"),
    ("uvicorn", "uvicorn"),
    ("fastapi", "uvicorn"),
    ("puma", "puma"),
    ("rails", "puma"),
    ("node", "node"),
    ("npm", "node"),
    ("npx", "node"),
    ("yarn", "node"),
    ("pnpm", "node"),
    ("java", "spring-boot"),
    ("catalina", "tomcat"),
    ("jsvc", "tomcat"),
    ("envoy", "envoy"),
    ("traefik", "traefik"),
];
/// Programs that start another.
const WRAPPERS: [&str; 16] = [
    "tini",
    "tini-static",
    "dumb-init",
    "catatonit",
    "docker-init",
    "boathook",
    "run",
    "env",
    "exec",
    "nohup",
    "nice",
    "bundle",
    "ruby",
    "busybox",
    "gosu",
    "su-exec",
];
const SHELLS: [&str; 5] = ["sh", "bash", "dash", "ash", "zsh"];

/// What was typed after `init`.
pub struct Options {
    pub preset: Option<String>,
    pub output: Option<PathBuf>,
    pub command: Vec<OsString>,
}

/// Prints the configuration, or writes it into a file that only its owner can read.
///
/// # Errors
/// There is no such preset, or the file cannot be written.
pub fn init(options: &Options) -> Result<u8, Fatal> {
    let (found, why) = choose(options)?;
    let text = compose(found.as_ref(), &make_token()?);
    let Some(path) = &options.output else {
        tell(&why);
        return print(text.as_bytes());
    };
    // Never over a file that is there: it may be somebody's work.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all())).map_err(|error| {
        let help = match error.kind() {
            io::ErrorKind::AlreadyExists => "take it away first, or name another file",
            _ => "without --output it is printed",
        };
        Fatal::new(exit::FAILED, format!("{}: cannot be written: {error}\n  help: {help}", path.display()))
    })?;
    tell(&format!("{why}; written to {}", path.display()));
    Ok(exit::OK)
}

/// Beside what is printed on stdout, which is for a file.
fn tell(what: &str) {
    let _ = writeln!(io::stderr(), "boathook: {what}");
}

/// The preset, and a word on why it is this one.
fn choose(options: &Options) -> Result<(Option<Preset>, String), Fatal> {
    if let Some(name) = &options.preset {
        let wrong = |(what, help)| Fatal::new(exit::USAGE, format!("{what}\n  help: {help}"));
        return Ok((Some(preset::find(name).map_err(wrong)?), format!("preset {name}")));
    }
    let (words, whose) = match options.command.as_slice() {
        [] => (running_command(), "PID 1"),
        words => (words.iter().map(|word| word.to_string_lossy().into_owned()).collect(), "the command"),
    };
    let first = words.first().map_or("", String::as_str);
    let is_running = options.command.is_empty();
    let is_go =
        |program: &str| is_made_by_go(Path::new(if is_running && program == first { "/proc/1/exe" } else { program }));
    let found = recognise(&words, &is_go).and_then(|name| preset::find(name).ok());
    // Not all of it: passwords stand in command lines.
    let why = match &found {
        Some(found) => format!("preset {}, as {whose} says", found.name),
        None if first.is_empty() => {
            "no preset, for nobody can tell what PID 1 is: name it by --preset, or its command".into()
        }
        None => format!("no preset, for {whose} is `{first}`, which nobody knows here: fill in what is marked"),
    };
    Ok((found, why))
}

/// The command of PID 1: in a container that is the main process, unless the containers of a pod share their processes.
fn running_command() -> Vec<String> {
    let line = read_start_of_regular(Path::new("/proc/1/cmdline"), LONGEST_COMMAND).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The name of the preset for a command line. Wrappers, interpreters and shells are looked through.
fn recognise(words: &[String], is_go: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    let mut in_shell = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if in_shell && word.contains(char::is_whitespace) {
            return word.split([';', '&', '|', '\n']).find_map(|one| {
                let words: Vec<String> =
                    one.split_whitespace().map(|word| word.trim_matches(['"', '\'']).into()).collect();
                recognise(&words, is_go)
            });
        }
        // Options, their numbers, and assignments before a command.
        if word.starts_with('-') || word.bytes().all(|byte| byte.is_ascii_digit()) || word.contains('=') {
            continue;
        }
        // Servers write titles: `nginx: master process …`, `puma 6.4.0 (tcp://…)`.
        let first = word.split([' ', ':']).next().unwrap_or_default();
        let name = first.rsplit('/').next().unwrap_or_default();
        let is_called = |(program, _): &&(&str, &str)| {
            let rest = name.strip_prefix(program);
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
        };
        if name == "java" && words.clone().any(|word| word.contains("catalina")) {
            return Some("tomcat");
        }
        if let Some((_, preset)) = PROGRAMS.iter().find(is_called) {
            return Some(preset);
        }
        in_shell |= SHELLS.contains(&name);
        match name {
            // Whose it will be.
            "gosu" | "su-exec" => _ = words.next(),
            "boathook" => _ = words.find(|word| *word == "--"),
            _ => {}
        }
        let is_wrapper = in_shell
            || WRAPPERS.contains(&name)
            || name.starts_with("python")
            || name.ends_with(".sh")
            || name.contains("entrypoint");
        if !is_wrapper {
            return is_go(word).then_some("go");
        }
    }
    None
}

/// Whether a program was linked by Go.
fn is_made_by_go(program: &Path) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = match program.components().count() {
        1 => std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file()),
        _ => Some(program.to_owned()),
    };
    let begin = found.and_then(|path| read_start_of_regular(&path, NOTE_WITHIN).ok()).unwrap_or_default();
    let (length, name) = GO_NOTE;
    begin.starts_with(b"\x7fELF") && begin.windows(16).any(|note| note.starts_with(length) && note.ends_with(name))
}

/// From the kernel's random numbers, in letters that need no quoting anywhere.
fn make_token() -> Result<String, Fatal> {
    let mut bytes = [0; TOKEN];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|errno| errno.to_string());
    match filled {
        Ok(TOKEN) => Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes)),
        Ok(_) => Err(Fatal::new(exit::INTERNAL, "no random numbers for a token")),
        Err(error) => Err(Fatal::new(exit::INTERNAL, format!("no random numbers for a token: {error}"))),
    }
}

/// The whole configuration.
fn compose(found: Option<&Preset>, token: &str) -> String {
    let mut text = BEGIN.replace("@token", token);
    let Some(Preset { name, text: preset }) = found else {
        return text + &UNKNOWN.replace("@presets", &preset::NAMES.join(", "));
    };
    let (about, gives) = preset.split_once("[app]\n").unwrap_or((preset, ""));
    text.push_str("[app]\n");
    text.push_str(about);
    text.push_str(&format!(
        "preset = \"{name}\"\n\n# What the preset gives: a line of [app] that you write yourself wins, and steps of your own replace its \
         pre-stop.\n"
    ));
    for line in gives.lines() {
        let is_said = line.is_empty() || line.starts_with('#');
        text.push_str(if is_said { "" } else { "#" });
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_through_what_stands_before_the_server() {
        let is_go = |program: &str| program == "/app/server";
        for (line, preset) in [
            ("nginx|-g|daemon off;", Some("nginx")),
            ("/docker-entrypoint.sh|nginx|-g|daemon off;", Some("nginx")),
            ("nginx: master process nginx -g daemon off;", Some("nginx")),
            ("sh|-c|echo a && exec /usr/sbin/nginx -g 'daemon off;'", Some("nginx")),
            ("/bin/bash|-ec|PORT=1 'haproxy' -f x", Some("haproxy")),
            ("tini|-s|-e|143|--|httpd-foreground", Some("apache")),
            ("apache2ctl|-D|FOREGROUND", Some("apache")),
            ("docker-php-entrypoint|php-fpm8.2", Some("php-fpm")),
            ("php-fpm: master process (/etc/php/fpm.conf)", Some("php-fpm")),
            ("boathook|--config|/c.toml|run|--|caddy|run", Some("caddy")),
            ("env|A=b|gosu|www-data|lighttpd|-D", Some("lighttpd")),
            ("varnishd|-F", Some("varnish")),
            ("python3|-m|uvicorn|app:app", Some("uvicorn")),
            ("/usr/bin/python3.11|/usr/local/bin/gunicorn|-k|uvicorn.workers.UvicornWorker", Some("gunicorn")),
            ("bundle|exec|puma|-C|config/puma.rb", Some("puma")),
            ("puma 6.4.0 (tcp://0.0.0.0:3000) [app]", Some("puma")),
            ("bin/rails|server", Some("puma")),
            ("docker-entrypoint.sh|node|server.js", Some("node")),
            ("java|-Xmx1g|-jar|app.jar", Some("spring-boot")),
            ("/opt/java/bin/java|-Dcatalina.base=/x|org.apache.catalina.startup.Bootstrap|start", Some("tomcat")),
            ("catalina.sh|run", Some("tomcat")),
            ("envoy|-c|x", Some("envoy")),
            ("/entrypoint.sh|traefik", Some("traefik")),
            ("tini|--|/app/server|-v", Some("go")),
            ("/app/other|nginx", None),
            ("nginxify", None),
            ("python3|app.py", None),
            ("sh|-c|", None),
            ("", None),
        ] {
            let words: Vec<String> = line.split('|').map(String::from).collect();
            assert_eq!(recognise(&words, &is_go), preset, "{line}");
        }
    }

    #[test]
    fn knows_programs_by_their_linker() {
        assert!(!is_made_by_go(Path::new("sh")));
        assert!(!is_made_by_go(Path::new("/does/not/exist")));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("server");
        let note = [b"\x7fELF".as_slice(), &[0; 4000], b"\x04\0\0\0\x53\0\0\0\x04\0\0\0Go\0\0id"].concat();
        std::fs::write(&path, note).expect("written");
        assert!(is_made_by_go(&path));
    }

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let (one, other) = (make_token().expect("random"), make_token().expect("random"));
        assert_eq!(one.len(), 43);
        assert_ne!(one, other);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{one}");
    }
}
