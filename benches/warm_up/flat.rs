//! When a long run shows the latency flat: the definition that the detector is measured against. It looks at the whole run
//! at leisure, with everything that came after.
//!
//! The run is cut into windows of whole rounds of the list; a window's latency is its mean without the slowest twentieth.
//! It is smoothed by a running median, over a fifth of the requests so far on either side (at least two windows). The
//! final level is the median window of the run's second half. Flat is the first window that is within the tolerance of the
//! final level, and from which on 95 of 100 windows are.

/// The number of requests after which it was flat.
pub fn flat(took: &[u32], window: usize, tolerance: f64) -> usize {
    let windows: Vec<f64> = took.chunks_exact(window).map(mean_without_slowest).collect();
    let most = median(&windows[windows.len() / 2..]) * (1.0 + tolerance);
    let is_flat: Vec<bool> = (0..windows.len())
        .map(|at| {
            let reach = (at / 5).max(2);
            median(&windows[at.saturating_sub(reach)..(at + reach + 1).min(windows.len())]) <= most
        })
        .collect();
    let (mut best, mut above) = (windows.len(), 0);
    for at in (0..windows.len()).rev() {
        above += usize::from(!is_flat[at]);
        if is_flat[at] && above * 20 <= windows.len() - at {
            best = at;
        }
    }
    best * window
}

fn mean_without_slowest(took: &[u32]) -> f64 {
    let mut took = took.to_vec();
    took.sort_unstable();
    took.truncate((took.len() - took.len() / 20).max(1));
    took.iter().copied().map(f64::from).sum::<f64>() / took.len() as f64
}

pub fn median(of: &[f64]) -> f64 {
    let mut of = of.to_vec();
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}
