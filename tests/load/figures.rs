//! Figures in words: percentiles, settings, and what a system that is known to many reaches.

use std::path::Path;
use std::time::Duration;

/// Eclipse Dataspace Connector 0.15.1: with its default settings, and tuned to poll without pause.
/// Both sides in memory and without TLS. Constants of an earlier measurement, not taken by this run.
pub(crate) const EDC: &str = "EDC 0.15.1 (earlier, no TLS, no disk)";
/// Its negotiation with default settings, p50.
pub(crate) const EDC_NEGOTIATION_DEFAULT_MS: u32 = 2036;
/// Its negotiation when tuned, p50.
pub(crate) const EDC_NEGOTIATION_TUNED_MS: u32 = 96;
/// Its negotiations per second when tuned.
pub(crate) const EDC_NEGOTIATIONS_PER_SECOND: u32 = 27;
/// Resident memory of one of its processes, idle.
pub(crate) const EDC_IDLE_MB: u32 = 175;

/// Prints what the figures depend on.
pub(crate) fn settings() {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(" unknown").to_owned();
    let folder = std::env::temp_dir();
    println!("machine     {cores} cores shared by everything below, {}", cpu.trim_start_matches(['\t', ':', ' ']));
    println!("programs    release profile, one process per participant, loopback, log of warnings only");
    println!("            two runtime threads in each connector, one per core in the broker");
    println!("wire        TLS 1.3, mutual authentication, P-256, connections kept");
    println!(
        "store       SQLite in each process, WAL, synchronous=FULL, {} ({})",
        folder.display(),
        file_system(&folder)
    );
}

fn file_system(folder: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        Some((fields.next()?, fields.next()?))
    });
    fields
        .filter(|(at, _)| folder.starts_with(at))
        .max_by_key(|(at, _)| at.len())
        .map_or("file system unknown".to_owned(), |(_, kind)| kind.to_owned())
}

/// A heading.
pub(crate) fn heading(text: &str) {
    println!("\n{text}");
}

/// One line below a heading.
pub(crate) fn line(name: &str, text: impl AsRef<str>) {
    println!("  {name:<34} {}", text.as_ref());
}

/// Times, sorted.
#[derive(Debug)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The smallest time that `percent` of all do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0.get(rank).copied().unwrap_or_default()
    }

    pub(crate) fn words(&self) -> String {
        format!(
            "p50 {}, p99 {}, slowest {} ({} times)",
            ms(self.percentile(50)),
            ms(self.percentile(99)),
            ms(self.percentile(100)),
            self.0.len()
        )
    }
}

pub(crate) fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// The median, the least and the greatest.
pub(crate) fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    (at(values.len() / 2), at(0), at(values.len().saturating_sub(1)))
}
