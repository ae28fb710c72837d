//! Which files of a source belong to a save: `include` and `exclude`, lists of globs. Pure.
//!
//! A glob is held against the path as it is stored, which begins with the source's own name (`sessions/a/b.tmp`); one
//! without a slash is held against the last component at any depth, as in a `.gitignore`, and one that ends with a slash
//! is for folders alone. `*` and `?` stay within a component, `**` is any number of whole components, `[a-z]` is a byte,
//! `{a,b}` is either. Exclude wins; what is below an excluded folder is out, what is below an included one is in.
//! Names are bytes, so that those that are no UTF-8 match too; a `?` is one byte of them.

use std::fmt::Write;

/// What is saved of the sources.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    glob: String,
    against: Against,
    only_folders: bool,
}

#[derive(Clone, Copy, Debug)]
enum Against {
    LastComponent,
    WholePath,
}

impl Patterns {
    /// Everything, when both are empty.
    ///
    /// # Errors
    /// Which globs cannot be, and why.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, String> {
        let mut wrong = String::new();
        let mut read = |key: &str, globs: &[String]| {
            let mut patterns = Vec::with_capacity(globs.len());
            for glob in globs {
                match Pattern::new(glob) {
                    Ok(pattern) => patterns.push(pattern),
                    Err(why) => {
                        let between = if wrong.is_empty() { "" } else { "; " };
                        // Writing to a string cannot fail.
                        let _ = write!(wrong, "{between}{key} {glob:?}: {why}");
                    }
                }
            }
            patterns
        };
        let patterns = Self { include: read("include", include), exclude: read("exclude", exclude) };
        if wrong.is_empty() { Ok(patterns) } else { Err(wrong) }
    }

    /// Whether only what matches is saved.
    pub fn are_choosy(&self) -> bool {
        !self.include.is_empty()
    }

    /// Whether this path, or all that is below this folder, is left out.
    pub fn exclude(&self, path: &[u8], is_folder: bool) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(path, is_folder))
    }

    /// Whether this path, or all that is below this folder, is asked for. An exclusion still wins.
    pub fn include(&self, path: &[u8], is_folder: bool) -> bool {
        !self.are_choosy() || self.include.iter().any(|pattern| pattern.matches(path, is_folder))
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, String> {
        let (glob, only_folders) = match text.strip_suffix('/') {
            Some(glob) => (glob, true),
            None => (text, false),
        };
        if glob.starts_with('/') {
            return Err("it begins with a slash: write it from the name of the source on, as sessions/*.tmp".into());
        }
        if glob.starts_with('!') {
            return Err("it begins with an exclamation mark: use the other of include and exclude, or \\!".into());
        }
        if glob.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err("it has an empty part, . or .., and no stored path does".into());
        }
        if let Err(error) = fast_glob::validate(glob) {
            return Err(error.to_string());
        }
        // The matcher takes brackets byte by byte: [ä] would match either half of an ä, and never the whole.
        if glob.split('[').skip(1).any(|rest| !rest.split(']').next().unwrap_or(rest).is_ascii()) {
            return Err("brackets are for ASCII characters: use braces, as {ä,ö}".into());
        }
        let against = if glob.contains('/') { Against::WholePath } else { Against::LastComponent };
        Ok(Self { glob: glob.into(), against, only_folders })
    }

    fn matches(&self, path: &[u8], is_folder: bool) -> bool {
        if self.only_folders && !is_folder {
            return false;
        }
        let subject = match self.against {
            Against::WholePath => path,
            Against::LastComponent => path.rsplit(|byte| *byte == b'/').next().unwrap_or(path),
        };
        fast_glob::glob_match(&self.glob, subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_told() {
        for (glob, yes, no) in [
            ("*.tmp", &["s/a.tmp", "a.tmp", "s/a/b/.tmp"][..], &["s/a.tmp/b", "s/a.tmpx"][..]),
            ("cache", &["cache", "s/cache", "s/a/cache"], &["s/cache2", "s/cache/x"]),
            ("s/*.tmp", &["s/a.tmp"], &["s/a/b.tmp", "x/s/a.tmp", "a.tmp"]),
            ("s/**/*.tmp", &["s/a.tmp", "s/a/b.tmp", "s/a/b/c.tmp"], &["a.tmp", "sx/a.tmp"]),
            ("**/a/*", &["a/x", "s/a/x", "s/t/a/x"], &["a", "s/a/x/y"]),
            ("s/**", &["s/a", "s/a/b"], &["s", "t/a"]),
            ("s/?.log", &["s/a.log"], &["s/ab.log", "s/.log"]),
            ("??.log", &["s/ab.log", "s/ü.log"], &["s/a.log"]),
            ("[a-c]?", &["s/ax", "s/cx"], &["s/dx", "s/a"]),
            ("[!a-c]x", &["s/dx"], &["s/ax"]),
            ("*.{jpg,png}", &["s/a.jpg", "s/a.png"], &["s/a.gif"]),
            ("{a/b,c}/d", &["a/b/d", "c/d"], &["b/d", "s/c/d"]),
            ("\\*.tmp", &["s/*.tmp"], &["s/a.tmp"]),
            ("\\!x", &["s/!x"], &["s/x"]),
            ("*", &["s", "s/a", "s/.hidden"], &[]),
            ("{ä,ö}.txt", &["s/ä.txt", "s/ö.txt"], &["s/ü.txt"]),
        ] {
            let patterns = Patterns::new(&[], &[glob.to_owned()]).expect(glob);
            for path in yes {
                assert!(patterns.exclude(path.as_bytes(), false), "{glob} matches {path}");
            }
            for path in no {
                assert!(!patterns.exclude(path.as_bytes(), false), "{glob} does not match {path}");
            }
        }
    }

    #[test]
    fn names_are_bytes() {
        let patterns = Patterns::new(&[], &["*.tmp".into(), "s/?x".into()]).expect("globs");
        assert!(patterns.exclude(b"s/\xff\xfe.tmp", false));
        assert!(patterns.exclude(b"s/\xffx", false));
        assert!(!patterns.exclude(b"s/\xff\xffx", false));
    }

    #[test]
    fn a_slash_at_the_end_is_for_folders() {
        let patterns = Patterns::new(&[], &["cache/".into(), "s/t/".into()]).expect("globs");
        assert!(patterns.exclude(b"s/cache", true) && patterns.exclude(b"s/t", true));
        assert!(
            !patterns.exclude(b"s/cache", false) && !patterns.exclude(b"s/t", false) && !patterns.exclude(b"x/t", true)
        );
    }

    #[test]
    fn nothing_asked_for_is_everything() {
        let all = Patterns::new(&[], &[]).expect("none");
        assert!(all.include(b"s", true) && !all.are_choosy());
        let some = Patterns::new(&["*.db".into()], &[]).expect("a glob");
        assert!(some.include(b"s/a.db", false) && !some.include(b"s/a", false) && some.are_choosy());
    }

    #[test]
    fn says_which_cannot_be_and_why() {
        let wrong = |glob: &str| Patterns::new(&[glob.into()], &[]).expect_err(glob);
        for (glob, why) in [
            ("", "it has an empty part, . or .., and no stored path does"),
            ("a//b", "it has an empty part, . or .., and no stored path does"),
            ("../b", "it has an empty part, . or .., and no stored path does"),
            ("/var/x", "it begins with a slash: write it from the name of the source on, as sessions/*.tmp"),
            ("!x", "it begins with an exclamation mark: use the other of include and exclude, or \\!"),
            ("[äö]", "brackets are for ASCII characters: use braces, as {ä,ö}"),
            ("a\\", "trailing backslash at byte 1 has no character to escape (to match a literal '\\', use '\\\\')"),
        ] {
            assert_eq!(wrong(glob), format!("include {glob:?}: {why}"));
        }
        assert!(wrong("a[b").starts_with("include \"a[b\": unclosed character class at byte 1"));
        let both = Patterns::new(&["{a".into()], &["ok".into(), "!b".into()]).expect_err("two");
        assert!(
            both.starts_with("include \"{a\": unclosed brace") && both.contains("; exclude \"!b\": it begins"),
            "{both}"
        );
    }
}
