//! `check --pod`: reads, finds, tells; one call after the other.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{IsTerminal, Write, stderr, stdin, stdout},
    path::Path,
};

use boathook::{
    cli::{Check, FailOn},
    exit,
    fatal::Fatal,
};

use crate::{
    document::{self, Document, Unreadable},
    finding::{Finding, Severity},
    fix,
    output::{self, Colour, Fate, Report},
    pod, rules,
};

/// One fix can make another one possible, but not without end.
const ROUNDS: usize = 4;

/// Gives the exit code.
///
/// # Errors
/// A manifest or the configuration cannot be read.
pub fn check(config: Option<&Path>, options: &Check) -> Result<u8, Fatal> {
    let mut inputs = read(&options.pod)?;
    let mut first = judge(&inputs, config, options)?;
    if !options.fix {
        let report = first.report(None);
        print(stdout(), &output::render(&report, options.format, colour(&stdout())))?;
        first.say_if_none(&inputs)?;
        return Ok(exit_code(&first.findings, options.fail_on));
    }
    let mut refusals: Vec<(Key, String)> = Vec::new();
    let mut fixed: Option<Judged> = None;
    for _ in 0..ROUNDS {
        refusals.clear();
        if !fix_all(&mut inputs, fixed.as_ref().unwrap_or(&first), &mut refusals) {
            break;
        }
        fixed = Some(judge(&inputs, config, options)?);
    }
    let last = fixed.map_or_else(|| first.findings.clone(), |fixed| fixed.findings);
    let left: BTreeSet<Key> = last.iter().map(key).collect();
    let mut fates: Vec<Fate> = first.findings.iter().map(|finding| fate(finding, &left, &refusals)).collect();
    let known: BTreeSet<Key> = first.findings.iter().map(key).collect();
    for finding in last.iter().filter(|finding| !known.contains(&key(finding))) {
        first.findings.push(finding.clone());
        fates.push(Fate::Left("shows only after the others are fixed".into()));
    }
    let report = first.report(Some(&fates));
    print(stdout(), &joined(&inputs))?;
    print(stderr(), &output::render(&report, options.format, colour(&stderr())))?;
    first.say_if_none(&inputs)?;
    Ok(exit_code(&last, options.fail_on))
}

/// A file and its text.
struct Input {
    name: String,
    text: String,
}

/// All of them, or all that is wrong with them.
fn read(files: &[std::path::PathBuf]) -> Result<Vec<Input>, Fatal> {
    let is_stdin = |file: &&std::path::PathBuf| file.as_os_str() == "-";
    if files.iter().filter(is_stdin).count() > 1 {
        return Err(Fatal::new(exit::USAGE, "--pod: `-` (stdin) can be read only once"));
    }
    let mut inputs = Vec::new();
    let mut wrong = Vec::new();
    for file in files {
        let name = if is_stdin(&file) { "stdin".to_owned() } else { file.display().to_string() };
        let text = if is_stdin(&file) {
            document::text(&name, stdin().lock())
        } else {
            match File::open(file) {
                Ok(open) => document::text(&name, open),
                Err(error) => Err(Unreadable {
                    file: name.clone(),
                    line: None,
                    what: format!("cannot be read: {error}"),
                    help: None,
                }),
            }
        };
        match text {
            Ok(text) => inputs.push(Input { name, text }),
            Err(unreadable) => wrong.push(unreadable),
        }
    }
    if wrong.is_empty() {
        return Ok(inputs);
    }
    // Whoever repairs one file wants to know about the others too.
    wrong.extend(inputs.iter().filter_map(|input| document::read(&input.name, 0, &input.text).err()));
    Err(fatal(&wrong))
}

fn fatal(wrong: &[Unreadable]) -> Fatal {
    Fatal { code: exit::DATA, lines: wrong.iter().map(ToString::to_string).collect() }
}

/// What was judged, and what was found.
struct Judged {
    documents: Vec<Document>,
    findings: Vec<Finding>,
    containers: usize,
    /// Documents that have one of these containers.
    judged: usize,
}

fn judge(inputs: &[Input], config: Option<&Path>, options: &Check) -> Result<Judged, Fatal> {
    let mut documents = Vec::new();
    let mut wrong = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        match document::read(&input.name, index, &input.text) {
            Ok(mut read) => documents.append(&mut read),
            Err(unreadable) => wrong.push(unreadable),
        }
    }
    if !wrong.is_empty() {
        return Err(fatal(&wrong));
    }
    let pods = pod::find(&documents, config, options.container.as_deref())?;
    let mut findings: Vec<Finding> = Vec::new();
    for finding in pods.iter().flat_map(rules::judge) {
        // What is wrong with a pod is found once for each of its containers.
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings.sort_by_key(|finding| {
        let document = documents.get(finding.document);
        (document.map(|document| (document.file_index, document.line(&finding.path))), finding.document)
    });
    let containers = pods.len();
    let judged = pods.iter().map(|pod| pod.index).collect::<BTreeSet<_>>().len();
    drop(pods);
    Ok(Judged { documents, findings, containers, judged })
}

impl Judged {
    fn report<'a>(&'a self, fates: Option<&'a [Fate]>) -> Report<'a> {
        Report {
            documents: &self.documents,
            findings: &self.findings,
            fates,
            containers: self.containers,
            judged: self.judged,
        }
    }

    /// Silence would look like a pass.
    fn say_if_none(&self, inputs: &[Input]) -> Result<(), Fatal> {
        if self.containers > 0 {
            return Ok(());
        }
        let files: Vec<_> = inputs.iter().map(|input| &*input.name).collect();
        let count = self.documents.len();
        print(
            stderr(),
            &format!(
                "boathook: {}: no container of {count} {} uses boathook: no hook, probe, command or volume names it\n  \
                 help: name the container with --container\n",
                files.join(", "),
                if count == 1 { "document" } else { "documents" },
            ),
        )
    }
}

/// What stays the same of a finding from one round to the next.
type Key = (&'static str, usize, crate::path::Path);

fn key(finding: &Finding) -> Key {
    (finding.rule.name, finding.document, finding.path.clone())
}

/// Whether anything has changed.
fn fix_all(inputs: &mut [Input], judged: &Judged, refusals: &mut Vec<(Key, String)>) -> bool {
    let mut has_changed = false;
    for (index, input) in inputs.iter_mut().enumerate() {
        let mine: Vec<(&Finding, &Document)> = judged
            .findings
            .iter()
            .filter(|finding| !finding.edits.is_empty())
            .filter_map(|finding| Some((finding, judged.documents.get(finding.document)?)))
            .filter(|(_, document)| document.file_index == index)
            .collect();
        if mine.is_empty() {
            continue;
        }
        let Ok(mut file) = fix::File::of(&input.text) else { continue };
        let groups: Vec<_> = mine.iter().map(|(finding, document)| (*document, &*finding.edits)).collect();
        for ((finding, _), refusal) in mine.iter().zip(file.edit_each(&groups)) {
            refusals.extend(refusal.map(|why| (key(finding), why)));
        }
        let text = file.text();
        has_changed |= text != input.text;
        input.text = text;
    }
    has_changed
}

fn fate(finding: &Finding, left: &BTreeSet<Key>, refusals: &[(Key, String)]) -> Fate {
    let key = key(finding);
    if !left.contains(&key) {
        return Fate::Fixed;
    }
    let refusal = refusals.iter().find(|(other, _)| *other == key).map(|(_, why)| why.clone());
    Fate::Left(refusal.unwrap_or_else(|| {
        if finding.edits.is_empty() { "only a person can decide" } else { "is still there after the change" }.into()
    }))
}

/// All files as one stream of documents.
fn joined(inputs: &[Input]) -> String {
    let mut stream = String::new();
    for input in inputs {
        if !stream.is_empty() {
            if !stream.ends_with('\n') {
                stream.push('\n');
            }
            let text = input.text.trim_start_matches('\u{feff}');
            let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
            if !lines.next().is_some_and(|line| line.starts_with("---") || line.starts_with('%')) {
                stream += "---\n";
            }
            stream += text;
        } else {
            stream += &input.text;
        }
    }
    stream
}

fn exit_code(findings: &[Finding], fail_on: FailOn) -> u8 {
    let least = match fail_on {
        FailOn::Error => Severity::Error,
        FailOn::Warning => Severity::Warning,
        FailOn::Note => Severity::Note,
    };
    match findings.iter().map(|finding| finding.severity).max().filter(|worst| *worst >= least) {
        Some(Severity::Error) => ERRORS,
        Some(Severity::Warning) => WARNINGS,
        Some(Severity::Note) => NOTES,
        None => exit::OK,
    }
}

const ERRORS: u8 = 1;
const WARNINGS: u8 = 2;
/// With `--fail-on note` only.
const NOTES: u8 = 3;

/// <https://no-color.org>: set to anything but nothing, it means no.
fn colour(stream: &impl IsTerminal) -> Colour {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if stream.is_terminal() && !is_refused { Colour::Always } else { Colour::Never }
}

/// A reader that has gone away (`| head`) is no failure.
fn print(mut to: impl Write, text: &str) -> Result<(), Fatal> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Fatal::new(exit::INTERNAL, format!("cannot write the result: {error}")))
        }
        _ => Ok(()),
    }
}
