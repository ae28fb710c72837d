//! The screen of `boathook status --watch`: the status and the terminal's size in, lines out. Pure. What comes from
//! servers and configurations is cut and cleaned here, so that none of it can speak to the terminal.

use serde_json::Value;

use super::SILENT;
use crate::status::{after_colon, head, is_order, show_seconds, word, words};

/// One line, no wider than asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    /// At which byte the outcome's mark stands, and its colour (the parameter of SGR, ECMA-48 8.3.117).
    pub mark: Option<(usize, &'static str)>,
}

/// Longer bars show nothing more.
const LONGEST_BAR: usize = 30;
/// Shorter ones show nothing.
const SHORTEST_BAR: usize = 8;
/// Words that have less room than this beside their step get a line of their own.
const FEW: usize = 24;

/// The whole screen: what the agent is, its hooks in one line each, and the steps of those that run.
pub fn draw(status: &Value, width: usize, height: usize) -> Vec<Line> {
    let plain = |text: &str| Line { text: text.to_owned(), mark: None };
    let mut lines: Vec<Line> = head(status).lines().map(plain).collect();
    if let Some(first) = lines.first_mut().filter(|_| status[SILENT] == true) {
        *first = plain("the agent does not answer; this is what was seen last");
    }
    // On small screens the steps matter more than where the agent listens.
    lines.truncate((height / 3).max(2));
    let mut hooks = Vec::new();
    let mut focus = 0;
    for hook in status["hooks"].as_array().into_iter().flatten() {
        focus = hooks.len();
        hooks.push(hook_line(hook));
        if hook["outcome"] == "running" {
            focus += draw_steps(hook, width, &mut hooks);
        }
    }
    if !hooks.is_empty() && lines.len() + hooks.len() < height {
        lines.push(plain(""));
    }
    lines.extend(window(hooks, focus, height.saturating_sub(lines.len())));
    lines.truncate(height);
    for line in &mut lines {
        line.text = clip(&line.text, width);
    }
    lines
}

fn hook_line(hook: &Value) -> Line {
    let (mark, colour) = mark(word(&hook["outcome"]));
    let took = show_seconds(&hook["took"]).map(|took| format!(" {took}")).unwrap_or_default();
    let deadline = show_seconds(&hook["deadline"]).unwrap_or_default();
    let (name, outcome, trigger) = (word(&hook["hook"]), word(&hook["outcome"]), word(&hook["trigger"]));
    let reason = after_colon(&hook["reason"]);
    Line {
        text: format!("{mark} {name} {outcome}{took} of {deadline}, by {trigger}{reason}"),
        mark: colour.map(|colour| (0, colour)),
    }
}

/// The steps of a hook; gives the place of the first that runs, counted from the hook's own line.
fn draw_steps(hook: &Value, width: usize, lines: &mut Vec<Line>) -> usize {
    let steps = || hook["steps"].as_array().into_iter().flatten();
    let widest = |key: &str, most: usize| steps().map(|step| columns(word(&step[key]))).max().unwrap_or(0).min(most);
    let (names, kinds) = (widest("name", width / 3), widest("kind", width / 4));
    let first = lines.len();
    let mut focus = None;
    for step in steps() {
        let outcome = word(&step["outcome"]);
        let (mark, colour) = mark(outcome);
        let took = show_seconds(&step["took"]).unwrap_or_default();
        let text = format!(
            "  {mark} {}  {}  {took:>6}",
            pad(&clip(word(&step["name"]), names), names),
            pad(&clip(word(&step["kind"]), kinds), kinds),
        );
        let here = lines.len();
        lines.push(Line { text, mark: colour.map(|colour| (2, colour)) });
        let mut words = words(step);
        if outcome == "running" {
            focus.get_or_insert(here + 1 - first);
            let beside = width.saturating_sub(columns(&lines[here].text) + 2);
            if let Some(bar) = bar(hook, step, beside.max(width.saturating_sub(6))).filter(|_| beside < FEW) {
                lines.push(Line { text: format!("      {bar}"), mark: None });
            } else if let Some(bar) = bar(hook, step, beside) {
                lines[here].text.push_str(&format!("  {bar}"));
            }
            lines.extend(words.iter().map(|words| Line { text: format!("      {words}"), mark: None }));
            continue;
        }
        // Why it ended says more than how far it came.
        let words = words.pop().unwrap_or_default();
        let beside = width.saturating_sub(columns(&lines[here].text) + 2);
        if words.is_empty() {
            let end = lines[here].text.trim_end().len();
            lines[here].text.truncate(end);
        } else if beside >= FEW || beside >= columns(&words) {
            lines[here].text.push_str(&format!("  {words}"));
        } else if outcome != "skipped" {
            // Why nothing was done is not worth a line.
            lines.push(Line { text: format!("      {words}"), mark: None });
        }
    }
    focus.unwrap_or_default()
}

/// How far a step is: by its own count, or else, dimmer, by how much of its time is over.
fn bar(hook: &Value, step: &Value, room: usize) -> Option<String> {
    let count = |key: &str| step["progress"][key].as_f64();
    let (part, full, empty, words) = if let (Some(done), Some(left)) = (count("done"), count("left")) {
        (if done + left > 0.0 { done / (done + left) } else { 1.0 }, '█', '░', String::new())
    } else {
        let limit = step["timeout"].as_f64().unwrap_or(f64::MAX);
        let left = hook["deadline"].as_f64()? - step["started"].as_f64()?;
        let limit = limit.min(left);
        (step["took"].as_f64()? / limit, '━', '·', format!(" of {}", show_seconds(&limit.into())?))
    };
    let width = room.saturating_sub(columns(&words)).min(LONGEST_BAR);
    if width < SHORTEST_BAR {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "0 to 30")]
    let filled = ((width as f64 * part) as usize).min(width);
    Some((0..width).map(|at| if at < filled { full } else { empty }).collect::<String>() + &words)
}

fn mark(outcome: &str) -> (char, Option<&'static str>) {
    match outcome {
        "succeeded" => ('✓', Some("32")),
        "failed" | "timed-out" => ('✗', Some("31")),
        "given-up" => ('✗', Some("33")),
        "running" => ('▸', Some("36")),
        "skipped" => ('–', None),
        _ => ('·', None),
    }
}

/// As many of the lines as there is room for, around the one that matters.
fn window(lines: Vec<Line>, focus: usize, room: usize) -> Vec<Line> {
    let all = lines.len();
    if all <= room {
        return lines;
    }
    // A little more of what comes than of what was.
    let start = focus.saturating_sub(room / 3).min(all - room);
    let mut seen: Vec<Line> = lines.into_iter().skip(start).take(room).collect();
    let say = |line: &mut Line, hidden: usize, what: &str| {
        *line = Line { text: format!("  … {hidden} {what}"), mark: None };
    };
    // With fewer lines than this there would be nothing but such notes.
    if room > 3 {
        if start > 0 {
            say(&mut seen[0], start + 1, "lines before");
        }
        if start + room < all {
            say(&mut seen[room - 1], all - start - room + 1, "lines more");
        }
    }
    seen
}

/// The part of a text that fits, with a mark where it was cut and nothing in it that a terminal would obey.
pub fn clip(text: &str, width: usize) -> String {
    let text = text.chars().filter(|c| !is_order(*c));
    let mut shown = String::new();
    let mut used = 0;
    for c in text {
        used += columns_of(c);
        if used > width {
            while columns(&shown) + 1 > width && shown.pop().is_some() {}
            if width > 0 {
                shown.push('…');
            }
            break;
        }
        shown.push(c);
    }
    shown
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// How many columns a text takes, without what is left out of it.
pub fn columns(text: &str) -> usize {
    text.chars().filter(|c| !is_order(*c)).map(columns_of).sum()
}

/// Wide where some terminal may show it so: too many columns cut a little early, too few break the view. From U+2E80
/// on are the scripts of East Asia and emoji, and U+1100 to U+115F is old Korean (Unicode's EastAsianWidth.txt).
fn columns_of(c: char) -> usize {
    if matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..) { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn screen(status: &Value, width: usize, height: usize) -> String {
        let lines = draw(status, width, height);
        assert!(lines.len() <= height, "{} lines", lines.len());
        for line in &lines {
            assert!(columns(&line.text) <= width, "{line:?}");
            assert!(!line.text.chars().any(char::is_control), "{line:?}");
        }
        lines.iter().map(|line| format!("{}\n", line.text)).collect()
    }

    fn warming() -> Value {
        json!({
            "version": "0.1.0", "mode": "run", "phase": "post-start", "ready": false,
            "not-ready-because": "post-start: step \"warm\": 2 of 14 URLs never answered 2xx",
            "uptime": 12.3, "main-process": 7, "listen": "0.0.0.0:4665",
            "hooks": [
                { "hook": "pre-start", "outcome": "succeeded", "trigger": "run", "took": 1.2, "deadline": 60.0, "steps": [
                    { "name": "restore", "kind": "restore", "outcome": "succeeded", "started": 0.0, "took": 1.2 } ] },
                { "hook": "post-start", "outcome": "running", "trigger": "main process started", "took": 11.0,
                  "deadline": 60.0, "steps": [
                    { "name": "app answers", "kind": "wait", "outcome": "succeeded", "started": 0.0, "took": 2.1,
                      "reason": "http://127.0.0.1:8080/healthz answers 200" },
                    { "name": "cache", "kind": "exec", "outcome": "failed", "started": 2.1, "took": 0.004,
                      "reason": "exit code 3: \u{1b}[2Jnot\u{202e} quite" },
                    { "name": "warm", "kind": "warm-up", "outcome": "running", "started": 2.1, "took": 8.9,
                      "timeout": 20.0, "reason": "2 of 14 URLs never answered 2xx: GET /x → 503 (40 times)",
                      "progress": { "done": 184, "left": 16, "failed": 3, "rate": 412.3, "p50": 0.0021, "p99": 0.018 } },
                    { "name": "last", "kind": "sleep", "outcome": "pending" } ] } ]
        })
    }

    #[test]
    fn a_warm_up_in_a_usual_terminal() {
        assert_eq!(
            screen(&warming(), 79, 23),
            "phase     post-start (not ready: post-start: step \"warm\": 2 of 14 URLs never a…\n\
             agent     boathook 0.1.0 run, up 12.3s\n\
             main      pid 7\n\
             listen    0.0.0.0:4665\n\
             \n\
             ✓ pre-start succeeded 1.2s of 1m, by run\n\
             ▸ post-start running 11s of 1m, by main process started\n  \
               ✓ app answers  wait       2.1s  http://127.0.0.1:8080/healthz answers 200\n  \
               ✗ cache        exec        4ms  exit code 3: [2Jnot quite\n  \
               ▸ warm         warm-up    8.9s  ███████████████████████████░░░\n      \
                   done 184 of 200, 3 failed, 412/s, p50 2.1ms, p99 18ms\n      \
                   2 of 14 URLs never answered 2xx: GET /x → 503 (40 times)\n  \
               · last         sleep\n"
        );
    }

    #[test]
    fn a_narrow_and_low_terminal() {
        assert_eq!(
            screen(&warming(), 39, 9),
            "phase     post-start (not ready: post-…\n\
             agent     boathook 0.1.0 run, up 12.3s\n\
             main      pid 7\n  \
               … 5 lines before\n      \
                   exit code 3: [2Jnot quite\n  \
               ▸ warm         warm-up    8.9s\n      \
                   ███████████████████████████░░░\n      \
                   done 184 of 200, 3 failed, 412/s…\n  \
               … 2 lines more\n"
        );
    }

    #[test]
    fn a_step_without_numbers_shows_its_time() {
        let mut status = warming();
        let step = &mut status["hooks"][1]["steps"][2];
        step["progress"] = Value::Null;
        let line = |status: &Value, width| {
            let lines = draw(status, width, 30);
            lines.iter().find(|line| line.text.contains('━')).map(|line| line.text.clone()).unwrap_or_default()
        };
        assert_eq!(line(&status, 79), "  ▸ warm         warm-up    8.9s  ━━━━━━━━━━━━━················· of 20s");
        assert_eq!(line(&status, 39), "      ━━━━━━━━━━━··············· of 20s");
        // What is left of the hook, where nothing is configured or less is left.
        status["hooks"][1]["steps"][2]["timeout"] = Value::Null;
        assert_eq!(line(&status, 79), "  ▸ warm         warm-up    8.9s  ━━━━·························· of 57.9s");
        // Without a sum there is no part of it.
        status["hooks"][1]["steps"][2]["progress"] = json!({ "done": 184, "failed": 0, "rate": 1.0 });
        assert_eq!(line(&status, 79), "  ▸ warm         warm-up    8.9s  ━━━━·························· of 57.9s");
    }

    #[test]
    fn an_agent_that_is_silent() {
        let mut status = warming();
        status[SILENT] = true.into();
        assert_eq!(draw(&status, 79, 23)[0].text, "the agent does not answer; this is what was seen last");
    }

    #[test]
    fn an_agent_at_rest() {
        let status = json!({ "version": "0.1.0", "mode": "serve", "phase": "ready", "ready": true, "uptime": 3600.0, "hooks": [] });
        assert_eq!(screen(&status, 79, 23), "phase     ready (ready)\nagent     boathook 0.1.0 serve, up 1h\n");
    }

    #[test]
    fn no_size_and_no_answer_is_too_odd() {
        let mut status = warming();
        let step = status["hooks"][1]["steps"][0].clone();
        status["hooks"][1]["steps"].as_array_mut().expect("steps").extend(vec![step; 100]);
        for width in 0..90 {
            for height in 0..30 {
                screen(&status, width, height);
            }
        }
        for odd in [
            json!(null),
            json!([]),
            json!({ "hooks": [1, { "steps": 3, "outcome": "running" }] }),
            json!({
                "phase": "post-start",
                "hooks": [{ "outcome": "running", "deadline": 1.0, "took": -1.0, "steps": [
                    { "outcome": "running", "started": 1.0, "took": 1e300, "progress": { "done": -1, "left": "x" } },
                    { "outcome": "running", "progress": { "done": 0, "left": 0 } } ] }]
            }),
        ] {
            screen(&odd, 79, 23);
        }
    }

    #[test]
    fn clips_by_columns() {
        for (text, width, clipped) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("漢字", 4, "漢字"),
            ("漢字漢", 4, "漢…"),
            ("漢", 1, "…"),
            ("abc", 0, ""),
            ("a\u{1b}[31m\u{9b}b\r\nc\u{202e}d", 20, "a[31mbcd"),
        ] {
            assert_eq!(clip(text, width), clipped, "{text:?}");
        }
    }

    #[test]
    fn marks_have_their_colours() {
        let lines = draw(&warming(), 79, 23);
        let marks: Vec<_> = lines.iter().filter_map(|line| line.mark).collect();
        assert_eq!(marks, [(0, "32"), (0, "36"), (2, "32"), (2, "31"), (2, "36")]);
        for line in lines.iter().filter(|line| line.mark.is_some()) {
            let (at, _) = line.mark.expect("a mark");
            assert!("✓✗▸".contains(line.text[at..].chars().next().expect("a mark")), "{line:?}");
        }
    }
}
