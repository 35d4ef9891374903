//! `squadctl top`: a daemon's jobs, live on a terminal.
//!
//! | module | what it does |
//! |---|---|
//! | `screen` | what is shown and what keys do, without a terminal |
//! | `draw` | the screen as cells |
//! | `terminal` | takes a terminal over, and gives it back however it ends |
//! | `news` | asks the daemon again and again |

mod draw;
mod news;
mod screen;
mod terminal;

use std::io::{self, IsTerminal};

use tokio::sync::mpsc::channel;
use tokio::sync::watch;

use self::news::News;
use self::screen::{Screen, Wish};
use self::terminal::Terminal;
use crate::cli::TopArgs;
use crate::client::Client;
use crate::fault::{BadUsage, Verdict};
use crate::follow::Interrupts;
use crate::output::Output;

/// Shows a daemon's jobs until the user leaves, or once.
pub(crate) async fn top(arguments: TopArgs, output: Output) -> anyhow::Result<Verdict> {
    let on_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if !on_terminal && !arguments.once && !output.is_json() {
        let sentence = "top draws on a terminal, and here is none; --once prints one picture as text, and --output json what list gives";
        return Err(BadUsage(sentence.into()).into());
    }
    let client = Client::connect(&arguments.server).await?;
    let (jobs, room) = client.overview().await?;
    if output.is_json() {
        output.document(&jobs)?;
        return Ok(Verdict::Done);
    }
    let mut screen = Screen::new(client.url().to_owned());
    screen.took(jobs, room);
    if arguments.once {
        output.data(&draw::text(&screen))?;
        return Ok(Verdict::Done);
    }
    live(client, screen, output.colours_data()).await
}

/// Draws, and does what keys say.
async fn live(client: Client, mut screen: Screen, coloured: bool) -> anyhow::Result<Verdict> {
    let mut interrupts = Interrupts::listen()?;
    // Given back when this returns, whichever way.
    let mut terminal = Terminal::take()?;
    let mut keys = terminal::keys();
    let (to_screen, mut news) = channel(4);
    let (opened, open) = watch::channel(None);
    tokio::spawn(news::ask(client.clone(), open, to_screen.clone()));
    loop {
        terminal.draw(|area, cells| draw::draw(&screen, coloured, area, cells))?;
        let wish = tokio::select! {
            key = keys.recv() => match key {
                Some(key) => screen.press(key?),
                None => return Ok(Verdict::Interrupted),
            },
            Some(news) = news.recv() => {
                screen.hear(news);
                Wish::Nothing
            }
            () = interrupts.next() => Wish::Interrupt,
        };
        match wish {
            Wish::Nothing => {}
            Wish::Leave => return Ok(Verdict::Done),
            Wish::Interrupt => return Ok(Verdict::Interrupted),
            // Whoever asks is there as long as this is.
            Wish::Open(job) => drop(opened.send_replace(job)),
            Wish::Cancel(job) => {
                let (client, to_screen) = (client.clone(), to_screen.clone());
                tokio::spawn(async move {
                    let said = match client.cancel(&job).await {
                        Ok(_) => format!("{job} was asked to stop"),
                        Err(error) => format!("{job} was not cancelled: {error:#}"),
                    };
                    // A screen that is gone needs no news.
                    to_screen.send(News::Said(said)).await.ok();
                });
            }
        }
    }
}
