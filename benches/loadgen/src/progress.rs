//! Showing how far a measurement is, on a terminal.

use std::time::Duration;

use adjoin_cli_kit::output::is_progress_wanted;
use indicatif::{ProgressBar, ProgressStyle};

/// How often the bar is drawn while a phase runs: by this process, so seldom.
const INTERVAL: Duration = Duration::from_millis(250);

/// A bar over `steps`, hidden where nobody would see it.
pub(crate) fn bar(steps: u64, unit: &str) -> ProgressBar {
    if !is_progress_wanted() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps);
    let template = format!("{{msg}} {{wide_bar}} {{pos}}/{{len}} {unit}, {{eta}} left");
    let style = ProgressStyle::with_template(&template);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Waits for something that takes some seconds, and moves a bar over milliseconds meanwhile.
pub(crate) async fn meanwhile<T>(bar: &ProgressBar, work: impl Future<Output = T>) -> T {
    let began = tokio::time::Instant::now();
    let before = bar.position();
    tokio::pin!(work);
    loop {
        if bar.is_hidden() {
            return work.await;
        }
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(INTERVAL) => {
                let passed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                let length = bar.length().unwrap_or(0);
                bar.set_position((before + passed_ms).min(length));
            }
        }
    }
}
