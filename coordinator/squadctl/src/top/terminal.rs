//! Takes a terminal over, and gives it back: when it is dropped, and when the program panics.

use std::io;
use std::time::Duration;

use anyhow::Context;
use ratatui::DefaultTerminal;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use ratatui::layout::Rect;
use tokio::sync::mpsc::{Receiver, channel};

/// How long a key is waited for before it is looked whether anybody still wants one. Fixed: it only paces looks.
const LOOK: Duration = Duration::from_millis(200);

/// A terminal of which every cell is ours.
pub(super) struct Terminal {
    terminal: Option<DefaultTerminal>,
    _back: Back,
}

/// Gives the terminal back.
struct Back;

impl Drop for Back {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        ratatui::try_restore().ok();
    }
}

impl Terminal {
    /// Takes it over: another screen, and keys as they are pressed.
    pub(super) fn take() -> anyhow::Result<Self> {
        // First: what is half taken is given back, too.
        let back = Back;
        let terminal = ratatui::try_init().context("cannot draw on this terminal")?;
        Ok(Self { terminal: Some(terminal), _back: back })
    }

    /// Draws all cells.
    pub(super) fn draw(&mut self, picture: impl FnOnce(Rect, &mut Buffer)) -> anyhow::Result<()> {
        if let Some(terminal) = &mut self.terminal {
            let drawn = terminal.draw(|frame| picture(frame.area(), frame.buffer_mut()));
            drawn.context("cannot draw on this terminal")?;
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It shows the cursor again, while the screen is still its own.
        self.terminal = None;
    }
}

/// What comes from the keyboard; `None` when only the size has changed. It ends when nobody listens any more.
pub(super) fn keys() -> Receiver<anyhow::Result<Option<KeyEvent>>> {
    let (to, keys) = channel(16);
    std::thread::spawn(move || {
        while !to.is_closed() {
            let key = match next() {
                Ok(Some(key)) => Ok(key),
                Ok(None) => continue,
                Err(error) => Err(error).context("cannot read from this terminal"),
            };
            let over = key.is_err();
            if to.blocking_send(key).is_err() || over {
                return;
            }
        }
    });
    keys
}

/// The next key, or a new size; nothing where none comes soon.
fn next() -> io::Result<Option<Option<KeyEvent>>> {
    if !event::poll(LOOK)? {
        return Ok(None);
    }
    Ok(match event::read()? {
        Event::Key(key) if key.kind != KeyEventKind::Release => Some(Some(key)),
        Event::Resize(..) => Some(None),
        _ => None,
    })
}
