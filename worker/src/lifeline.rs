//! Standard input: first the ticket, then the lifeline.
//!
//! The launcher holds the other end open. Its end means that the launcher is gone, whatever killed it.

use std::io::{BufRead, Read};

use anyhow::Context;
use squad_proto::Ticket;

/// Longest ticket; a spec is a few kilobytes.
const MAX_TICKET: u64 = 1 << 20;

/// Reads the ticket.
///
/// # Errors
/// When standard input ends before a whole ticket, or holds something else.
pub(crate) fn read_ticket() -> anyhow::Result<Ticket> {
    let mut line = String::new();
    std::io::stdin().lock().take(MAX_TICKET).read_line(&mut line).context("cannot read standard input")?;
    if line.trim().is_empty() {
        anyhow::bail!(
            "there is no ticket on standard input; squad-worker join is started by a launcher (see squadctl run --help)"
        );
    }
    serde_json::from_str(&line).context("standard input does not begin with a ticket of this version")
}

/// Calls `lost` once standard input has ended. The thread is not joined: it ends with the process.
pub(crate) fn watch(lost: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("squad-lifeline".into()).spawn(move || {
        let mut byte = [0; 64];
        // An error means the same as the end.
        while matches!(std::io::stdin().read(&mut byte), Ok(n) if n > 0) {}
        lost();
    })?;
    Ok(())
}
