//! What is shown while files are downloaded.

use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use squad_fetch::Event;

use crate::output::Output;

/// Shows a download: a bar where one can be drawn, else a line for each file and for what goes wrong.
pub(super) fn teller(output: Output) -> impl Fn(&Event<'_>) + Send + Sync {
    let target = if output.is_live() { ProgressDrawTarget::stderr } else { ProgressDrawTarget::hidden };
    let style =
        ProgressStyle::with_template("{prefix} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let current: Mutex<Option<(String, ProgressBar)>> = Mutex::new(None);
    move |event| {
        // Nothing panics while the lock is held; a poisoned bar could still be drawn.
        let mut current = current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let say = |text: &str| match &*current {
            Some((_, bar)) if output.is_live() => bar.println(text),
            _ => output.talk(text),
        };
        match event {
            Event::Bytes { file, done, total } => {
                if current.as_ref().is_none_or(|(name, _)| name != file) {
                    let bar = ProgressBar::with_draw_target(*total, target()).with_style(style.clone());
                    bar.set_prefix((*file).to_owned());
                    *current = Some(((*file).to_owned(), bar));
                }
                if let Some((_, bar)) = &*current {
                    bar.set_position(*done);
                }
            }
            Event::Retry { file, reason, pause } => {
                say(&format!("{file}: {reason}; trying again in {:.0} s", pause.as_secs_f64()));
            }
            Event::Waiting { file } => {
                say(&format!("{file}: another process is fetching it; waiting for that"))
            }
            Event::Done { file, bytes } => {
                if let Some((_, bar)) = current.take() {
                    bar.finish_and_clear();
                }
                output.talk(&format!("{file}: {bytes} bytes, complete"));
            }
            _ => {}
        }
    }
}
