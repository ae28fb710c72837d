//! What tests of texts share: the texts' blocks, command lines, links and names, and the real binary that they are held
//! against. The second binary's tests include this file as well.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use boathook::{
    cli::Cli,
    config::{self, Config, Listener},
    problem::Problem,
};
use clap::{CommandFactory, Parser};

/// The token of all examples.
pub const TOKEN: &str = "replace-me-in-all-three-places";

/// The repository, also for the tests of a crate within it.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let above = own.ancestors().find(|folder| folder.join("docs/book.toml").exists());
    above.expect("the repository has a book").to_owned()
}

pub fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// The environment of the manifests.
pub fn environment(name: &str) -> Option<String> {
    match name {
        "BOATHOOK_TOKEN" => Some(TOKEN.into()),
        "HOST_IP" => Some("192.0.2.10".into()),
        _ => None,
    }
}

pub fn parse(file: &str, text: &str) -> Result<Config, Vec<Problem>> {
    config::parse(file, text, &environment, Listener::Needed)
}

pub fn show(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// A program in this folder, with the environment of the manifests and an agent's name of its own.
fn command_in(folder: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env_clear()
        .env("BOATHOOK_TOKEN", TOKEN)
        .env("HOST_IP", "192.0.2.10")
        .env("BOATHOOK_SOCKET", format!("docs-{}-{}", std::process::id(), folder.display()));
    command
}

pub fn run(program: &str, folder: &Path, arguments: &[&str]) -> Output {
    command_in(folder, program).args(arguments).output().expect("the binary starts")
}

// ---- blocks ----

/// A block of code: what stands behind its opening fence, its text, and the line of the fence.
pub struct Block {
    pub language: String,
    pub text: String,
    pub line: usize,
}

/// All blocks; those within a list are indented.
pub fn all_blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else { continue };
        let indent = line.len() - line.trim_start().len();
        let inner: Vec<&str> = lines
            .by_ref()
            .map(|(line, _)| line)
            .take_while(|line| line.trim() != "```")
            .map(|line| line.get(indent..).unwrap_or(""))
            .collect();
        found.push(Block { language: language.into(), text: inner.join("\n") + "\n", line: number });
    }
    found
}

/// Blocks in this language.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    all_blocks(text).into_iter().filter(|block| block.language == language).map(|block| block.text).collect()
}

/// The text without its blocks.
pub fn prose(text: &str) -> String {
    let mut is_code = false;
    let keep = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        is_code ^= fence;
        !is_code && !fence
    };
    text.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

/// What stands in backticks.
pub fn spans(text: &str) -> Vec<String> {
    prose(text).split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A configuration says who may trigger its hooks; what does not is a part of one, and is understood with that before it.
pub fn is_complete(toml: &str) -> bool {
    toml.contains("[server]")
}

pub fn parse_block(place: &str, toml: &str) -> Result<Config, Vec<Problem>> {
    match is_complete(toml) {
        true => parse(place, toml),
        false => parse(place, &format!("server.allow-from = [\"gateway\"]\n{toml}")),
    }
}

// ---- command lines ----

/// Cuts a command line as a shell does, as far as our texts need it.
pub fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, c) if c.is_whitespace() => words.push(String::new()),
            (_, c) => words.last_mut().expect("there is always one").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Command lines of boathook in a text: lists of words as in a pod's `command`, and text behind a prompt, in backticks, at
/// the beginning of a line, behind a pipe, or behind `kubectl exec POD --`.
pub fn command_lines(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in text.lines() {
        for (at, _) in line.match_indices("[\"/") {
            let Some(end) = line[at..].find(']') else { continue };
            if let Ok(list) = serde_json::from_str::<Vec<String>>(&line[at..=at + end])
                && list[0].ends_with("/boathook")
            {
                found.push(list);
            }
        }
        let inline = line.split('`').skip(1).step_by(2);
        let plain = line.trim_start().trim_start_matches("$ ").trim_start_matches("- run: ");
        for command in inline.chain([plain, plain.trim_start_matches("Example: ")]) {
            // In a sentence what stands behind a pipe is in backticks, or a table's next cell.
            let pipe = if command.contains('`') { "\n" } else { " | " };
            for command in command.split(pipe) {
                let command = command.split_once(" -- /").map_or(command, |(_, inner)| inner);
                // A word of prose follows the name in a sentence, a subcommand or an option in a command.
                let command = command.split([';', '#']).next().unwrap_or_default();
                let command =
                    [" > ", " 2>", "   ("].iter().fold(command, |rest, cut| rest.split(cut).next().unwrap_or_default());
                let known = |word: &str| word.starts_with("--") || Cli::command().find_subcommand(word).is_some();
                let list = words(command);
                if list.len() > 1 && ["boathook", "boathook-kube"].contains(&&*list[0]) && known(&list[1]) {
                    found.push(list);
                }
            }
        }
    }
    found
}

/// Gives how many there were.
pub fn check_command_lines(place: &str, text: &str) -> usize {
    let lines = command_lines(text);
    for line in &lines {
        // A name (`boathook run`), and a placeholder for any kind of step or choice.
        let is_name = line.len() == 2 && Cli::command().find_subcommand(&line[1]).is_some()
            || line.join(" ") == "boathook check --pod";
        if is_name || line.iter().any(|word| word == "KIND" || word.contains('…') || word.contains('|')) {
            continue;
        }
        if let Err(error) = Cli::try_parse_from(line) {
            assert!(!error.use_stderr(), "{place}: {line:?}: {error}");
        }
    }
    lines.len()
}

/// Runs what stands behind the prompts of a text, where `wanted` says so, and holds what is printed against what is shown:
/// in a shell, in a folder with the last configuration and the last manifest before the block. Of a step some lines of the
/// log are shown, without their times and figures, and its places are below that folder. Gives how many were run.
pub fn reproduce(program: &str, place: &str, text: &str, wanted: impl Fn(&str) -> bool) -> usize {
    let mut count = 0;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = folder.path().display().to_string();
    for made in ["bin", "var/lib/app/sessions"] {
        fs::create_dir_all(folder.path().join(made)).expect("made");
    }
    std::os::unix::fs::symlink(program, folder.path().join("bin/boathook")).expect("linked");
    fs::write(folder.path().join("var/lib/app/sessions/one"), "1\n").expect("written");
    for block in all_blocks(text) {
        let place = format!("{place}:{}", block.line);
        match block.language.as_str() {
            "toml" if is_complete(&block.text) => {
                fs::write(folder.path().join("boathook.toml"), &block.text).expect("written");
            }
            "yaml" => fs::write(folder.path().join("pod.yaml"), &block.text).expect("written"),
            "console" => {
                let (command, shown) = block.text.split_once('\n').expect("a command and its output");
                let command = command.strip_prefix("$ ").unwrap_or_else(|| panic!("{place}: no prompt"));
                if !wanted(command) {
                    continue;
                }
                count += 1;
                let is_step = command.contains("boathook step ");
                let command = match is_step {
                    true => {
                        command.replace(" /state", &format!(" {here}/state")).replace(" /var", &format!(" {here}/var"))
                    }
                    false => command.to_owned(),
                };
                let output = command_in(folder.path(), "sh")
                    .args(["-c", &command])
                    .env("PATH", format!("{here}/bin:/usr/bin:/bin"))
                    .output()
                    .expect("a shell");
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                if is_step {
                    let said: Vec<String> = stderr.lines().map(without_figures).collect();
                    for line in shown.lines() {
                        assert!(said.contains(&without_figures(line)), "{place}: {line}\n{stderr}");
                    }
                } else {
                    assert_eq!(String::from_utf8_lossy(&output.stdout), shown, "{place}\n{stderr}");
                }
            }
            _ => {}
        }
    }
    count
}

/// A line of the log without its time, and with every number as `N`: durations, sizes and dates differ.
fn without_figures(line: &str) -> String {
    let rest = line.split_once("Z ").filter(|(time, _)| time.starts_with("20") && time.contains('T'));
    let line = rest.map_or(line, |(_, rest)| rest).trim_start();
    let mut text = String::new();
    for c in line.chars() {
        let c = if c.is_ascii_digit() { 'N' } else { c };
        if !(c == 'N' && text.ends_with('N')) {
            text.push(c);
        }
    }
    // 999ms and 1s, and 1.2s.
    text.replace("N.N", "N").replace("Nms", "T").replace("Ns", "T")
}

// ---- links ----

/// The links of a text outside of its blocks, without those to the world.
pub fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.starts_with("http")).map(str::to_owned).collect()
}

/// What a link may end in: headings as GitHub and mdBook write them.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    headings.map(anchor).collect()
}

/// What is wrong with the links of the file at `path`.
pub fn dead_links(path: &Path, text: &str) -> Vec<String> {
    let mut dead = Vec::new();
    for link in links(text) {
        let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
        let target = if file.is_empty() { path.to_owned() } else { path.parent().expect("a folder").join(file) };
        if !target.exists() {
            dead.push(format!("{}: {link}: there is no such file", path.display()));
        } else if !anchor.is_empty() && !anchors(&read(&target)).contains(anchor) {
            dead.push(format!("{}: {link}: there is no such heading", path.display()));
        }
    }
    dead
}

/// All Rust below a folder, as one text.
pub fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &read(&path);
        }
    }
    text
}

/// The Markdown files below a folder, in order.
pub fn markdown(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(markdown(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The book's pages, with their names as the summary has them.
pub fn pages() -> Vec<(PathBuf, String, String)> {
    let folder = root().join("docs/src");
    let name = |path: &Path| path.strip_prefix(&folder).expect("below it").display().to_string();
    markdown(&folder).into_iter().map(|path| (path.clone(), name(&path), read(&path))).collect()
}
