//! `check --pod` ends in words whatever it is given: manifests of the corpus, damaged at random, panic nowhere.
//!
//! `RUNS=100000 cargo test --release -p boathook-kube --test any_manifest` looks longer.

use std::{fs, panic, path::Path, time::Instant};

use boathook_kube::{document, fix, pod, rules};
use serde_json::{Map, Value};

/// Enough for each manifest of the corpus to be damaged in half a dozen ways, in a few seconds without optimisation.
const RUNS: usize = 1_000;

/// Numbers that look random and are the same in each run (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// What a value may be instead of what it is: the edges of each type, and what the rules look for.
fn strange(random: &mut Random) -> Value {
    let texts = [
        "",
        "/",
        "-1",
        "0",
        "30",
        "4665",
        "hooks",
        "/boathook",
        "run",
        "boathook run",
        "sleep 15",
        "${HOST_IP}",
        "Bearer ",
        "/etc/boathook",
        "../..",
        "\u{0}",
        "ä\n#: - {",
        "99999999999999999999",
        "~",
        "null",
        "- a",
        "{",
        "&a",
        "*a",
        "<<",
    ];
    match random.below(9) {
        0 => Value::Null,
        1 => Value::Bool(true),
        2 => Value::from(i64::MIN),
        3 => Value::from(u64::MAX),
        4 => Value::from(-1),
        5 => Value::from(1.5),
        6 => Value::Array(Vec::new()),
        7 => Value::Object(Map::new()),
        _ => Value::from(*random.pick(&texts)),
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// Damages node number `at`, counted from the root.
fn damage(value: &mut Value, at: &mut usize, random: &mut Random) {
    if *at == 0 {
        *value = match random.below(4) {
            0 => Value::Array(vec![value.take()]),
            1 => Value::Object(Map::from_iter([("containers".to_owned(), value.take())])),
            _ => strange(random),
        };
        *at = usize::MAX;
        return;
    }
    *at -= 1;
    match value {
        Value::Array(list) => {
            for index in 0..list.len() {
                if *at == 0 && random.below(2) == 0 {
                    if random.below(2) == 0 {
                        list.remove(index);
                    } else {
                        let again = list[index].clone();
                        list.insert(random.below(index + 1), again);
                    }
                    *at = usize::MAX;
                }
                if *at == usize::MAX {
                    return;
                }
                damage(&mut list[index], at, random);
            }
        }
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            for key in keys {
                if *at == 0 && random.below(2) == 0 {
                    let taken = map.remove(&key).unwrap_or_default();
                    if random.below(2) == 0 {
                        let other = ["lifecycle", "preStop", "exec", "containers", "kind", "x"];
                        map.insert((*random.pick(&other)).to_owned(), taken);
                    }
                    *at = usize::MAX;
                }
                if *at == usize::MAX {
                    return;
                }
                if let Some(inner) = map.get_mut(&key) {
                    damage(inner, at, random);
                }
            }
        }
        _ => {}
    }
}

/// Damages the text itself: lines, and characters that mean something in YAML.
fn scribble(text: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    for _ in 0..=random.below(3) {
        let at = random.below(lines.len());
        match random.below(6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 => lines[at].insert_str(0, "  "),
            3 => lines[at] = lines[at].trim_start().to_owned(),
            4 => lines.swap(at, at / 2),
            _ => {
                let signs =
                    ["#", ":", " - ", "{", "}", "]", "|", ">", "'", "\"", "&x ", "*x", "\t", "---", "%", "\u{85}", "é"];
                let place =
                    lines[at].char_indices().map(|(place, _)| place).nth(random.below(lines[at].len())).unwrap_or(0);
                lines[at].insert_str(place, signs[random.below(signs.len())]);
            }
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.join(if random.below(8) == 0 { "\r\n" } else { "\n" })
}

/// All of `check --pod`, in this process; how many findings there were.
fn check(text: &str) -> usize {
    let Ok(documents) = document::read("manifest.yaml", 0, text) else {
        return 0;
    };
    let Ok(pods) = pod::find(&documents, None, None) else {
        return 0;
    };
    let findings: Vec<_> = pods.iter().flat_map(rules::judge).collect();
    for finding in &findings {
        let line = documents[finding.document].line(&finding.path);
        assert!((1..=text.lines().count().max(1)).contains(&line), "line {line} of {}", finding.path);
    }
    let edits: Vec<_> =
        findings.iter().flat_map(|finding| finding.edits.iter().map(|edit| (finding.document, edit.clone()))).collect();
    let all: Vec<&document::Document> = documents.iter().collect();
    if let Ok(fixed) = fix::apply(text, &all, &edits) {
        // Text that was YAML is YAML afterwards.
        assert!(document::read("manifest.yaml", 0, &fixed).is_ok(), "what --fix wrote cannot be read:\n{fixed}");
    }
    findings.len()
}

fn corpus() -> Vec<String> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> = ["good", "bad"]
        .iter()
        .flat_map(|kind| fs::read_dir(corpus.join(kind)).expect("the corpus"))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).expect("a manifest")).collect()
}

#[test]
fn no_manifest_makes_check_panic() {
    let runs = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let texts = corpus();
    let values: Vec<Vec<Value>> = texts
        .iter()
        .map(|text| {
            let documents = document::read("manifest.yaml", 0, text).unwrap_or_default();
            documents.into_iter().map(|document| document.value).collect()
        })
        .collect();
    let mut random = Random(0x0B0A_7400);
    let begun = Instant::now();
    let mut findings = 0;
    for run in 0..runs {
        let which = run % texts.len();
        let text = if random.below(2) == 0 || values[which].is_empty() {
            scribble(&texts[which], &mut random)
        } else {
            let mut documents = values[which].clone();
            for _ in 0..=random.below(3) {
                let document = random.below(documents.len());
                let mut at = random.below(count(&documents[document]));
                damage(&mut documents[document], &mut at, &mut random);
            }
            documents.iter().map(|document| format!("---\n{document:#}\n")).collect()
        };
        match panic::catch_unwind(|| check(&text)) {
            Ok(found) => findings += found,
            Err(_) => panic!("run {run} panics with:\n{text}"),
        }
    }
    assert!(findings > runs / 4, "only {findings} findings: the rules are not reached");
    println!("{runs} manifests, {findings} findings, {:?}", begun.elapsed());
}
