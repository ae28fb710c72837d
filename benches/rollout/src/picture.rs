//! The picture: for each server failures on the left and seconds on the right, in groups by how late the router was, a
//! bar for each policy. Written out as SVG by hand, for light and dark pages alike.

use std::{fmt::Write as _, time::Duration};

use crate::{
    policy::Policy,
    report,
    results::{Results, Row},
    router::Mode,
};

/// The longest request of the load, in seconds: with the router's lateness the least that a stop can take.
const LONGEST_REQUEST: f64 = 3.0;

const WIDTH: f64 = 1000.0;
/// Of one server's pair of panels, with its title and the names below.
const ROW_HEIGHT: f64 = 250.0;
const PANEL: Size = Size { width: 430.0, height: 150.0 };
const LEFT: [f64; 2] = [50.0, 550.0];
const LEGEND_HEIGHT: f64 = 60.0;
/// Below this a bar would not be seen.
const LEAST_BAR: f64 = 1.0;

struct Size {
    width: f64,
    height: f64,
}

/// Colours that people with any colour vision tell apart (Okabe and Ito), readable on white and on black.
fn colour(policy: Policy) -> &'static str {
    match policy {
        Policy::NoHook => "#d55e00",
        Policy::Sleep5 => "#e69f00",
        Policy::Sleep15 => "#b8a800",
        Policy::Graceful => "#cc79a7",
        Policy::Boathook => "#0072b2",
        Policy::NoQuiet | Policy::NoInFlight => "#999999",
    }
}

/// Controls are for the tables: they show that the benchmark sees drops, nobody would run them.
fn is_shown(policy: Policy) -> bool {
    !policy.is_control()
}

/// The servers that `is_wanted` names.
pub fn draw(results: &Results, is_wanted: impl Fn(&str) -> bool) -> String {
    let groups: Vec<_> = report::groups(results).into_iter().filter(|(server, _)| is_wanted(server)).collect();
    let height = LEGEND_HEIGHT + ROW_HEIGHT * groups.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#888\">\n"
    );
    legend(&mut svg);
    for (at, (server, mode)) in groups.into_iter().enumerate() {
        let top = LEGEND_HEIGHT + ROW_HEIGHT * at as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" font-size=\"15\">{server}, router in {} mode</text>",
            LEFT[0],
            top + 15.0,
            mode.name().to_uppercase()
        );
        let share = |row: &Row| 100.0 * row.tally.failures() as f64 / row.tally.requests.max(1) as f64;
        let failures = |row: &Row| row.tally.failures().to_string();
        panel(
            &mut svg,
            results,
            server,
            mode,
            &Panel {
                left: LEFT[0],
                top: top + 40.0,
                title: "failed, % of the requests (number above)",
                value: &share,
                label: &failures,
                least: None,
            },
        );
        let seconds = |row: &Row| format!("{:.1}", row.seconds());
        panel(
            &mut svg,
            results,
            server,
            mode,
            &Panel {
                left: LEFT[1],
                top: top + 40.0,
                title: "seconds until a replica is gone; line: the least possible",
                value: &Row::seconds,
                label: &seconds,
                least: Some(LONGEST_REQUEST),
            },
        );
    }
    svg + "</svg>\n"
}

fn legend(svg: &mut String) {
    let mut x = LEFT[0];
    for policy in Policy::ALL.into_iter().filter(|&policy| is_shown(policy)) {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"15\" width=\"12\" height=\"12\" fill=\"{}\"/>\
            <text x=\"{}\" y=\"25\">{}</text>",
            colour(policy),
            x + 18.0,
            policy.name()
        );
        x += 110.0;
    }
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"25\">groups: the router learns of a removal D seconds late</text>");
}

struct Panel<'a> {
    left: f64,
    top: f64,
    title: &'a str,
    value: &'a dyn Fn(&Row) -> f64,
    label: &'a dyn Fn(&Row) -> String,
    /// A line in each group, this much above the router's lateness.
    least: Option<f64>,
}

fn panel(svg: &mut String, results: &Results, server: &str, mode: Mode, panel: &Panel<'_>) {
    let (mut policies, delays) = report::axes(results, server, mode);
    policies.retain(|&policy| is_shown(policy));
    let Panel { left, top, title, .. } = panel;
    let bottom = top + PANEL.height;
    let row = |policy: Policy, delay: Duration| results.find(server, mode, policy, delay);
    let values = policies.iter().flat_map(|&policy| delays.iter().filter_map(move |&delay| row(policy, delay)));
    let most = values.map(panel.value).fold(0.0, f64::max);
    let scale = PANEL.height / nice_top(most);
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\">{title}</text>", top - 10.0);
    let _ = writeln!(svg, "<path d=\"M{left} {top}V{bottom}h{}\" stroke=\"#888\" fill=\"none\"/>", PANEL.width);
    for part in 0..=2 {
        let value = nice_top(most) * f64::from(part) / 2.0;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{value}</text>",
            left - 5.0,
            bottom - value * scale + 4.0
        );
    }
    let group = PANEL.width / delays.len().max(1) as f64;
    let bar = group * 0.85 / policies.len().max(1) as f64;
    for (at, &delay) in delays.iter().enumerate() {
        let begin = left + group * (at as f64 + 0.075);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">D = {} s</text>",
            begin + group * 0.425,
            bottom + 16.0,
            delay.as_secs()
        );
        for (place, &policy) in policies.iter().enumerate() {
            let Some(row) = row(policy, delay) else { continue };
            let (x, height) = (begin + bar * place as f64, ((panel.value)(row) * scale).max(LEAST_BAR));
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{}\"/>\
                <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"7\" text-anchor=\"middle\">{}</text>",
                bottom - height,
                bar - 1.0,
                colour(policy),
                x + bar / 2.0 - 0.5,
                bottom - height - 2.0,
                (panel.label)(row)
            );
        }
        if let Some(least) = panel.least {
            let y = bottom - (delay.as_secs_f64() + least) * scale;
            let _ = writeln!(
                svg,
                "<path d=\"M{begin:.1} {y:.1}h{:.1}\" stroke=\"#888\" stroke-dasharray=\"3 2\"/>",
                group * 0.85
            );
        }
    }
}

/// The top of an axis: the next of 1, 2, 5, 10, 20, 50 … that holds the value.
fn nice_top(most: f64) -> f64 {
    let mut top = 1.0;
    for factor in [2.0, 2.5, 2.0].into_iter().cycle() {
        if top >= most {
            break;
        }
        top *= factor;
    }
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (most, top) in [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (4.0, 5.0), (9.0, 10.0), (21.0, 50.0)] {
            assert!((nice_top(most) - top).abs() < 1e-9, "{most}: {}", nice_top(most));
        }
    }
}
