//! The screen as cells.

#[cfg(test)]
mod tests;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, StatefulWidget, Table, TableState, Widget};
use squad_proto::{JobState, Phase};

use super::screen::Screen;
use crate::figures;
use crate::job::Job;
use crate::report;

/// Heads of the list; the last column has the rest of the line.
const JOBS: [&str; 8] = ["JOB", "STATE", "PRIORITY", "SLOTS", "STEPS/S", "LOSS", "ETA", "PROGRESS"];
const RANKS: [&str; 5] = ["RANK", "STATE", "PHASE", "DONE", "HEARD OF"];
/// Cells of a bar.
const BAR: usize = 12;
/// Between two columns.
const GAP: u16 = 2;

/// Draws the screen into an area.
pub(super) fn draw(screen: &Screen, coloured: bool, area: Rect, cells: &mut Buffer) {
    let [head, _, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    Line::from(heading(screen)).bold().render(head, cells);
    match &screen.open {
        Some(job) => ranks(job, screen.now_unix_ms, body, cells),
        None => jobs(screen, coloured, body, cells),
    }
    let footing = footing(screen);
    let style = if screen.asking.is_some() || screen.trouble.is_some() {
        Style::new().reversed()
    } else {
        Style::new()
    };
    Line::styled(footing, style).render(foot, cells);
}

/// The list as plain text, as wide and as long as it must be.
pub(super) fn text(screen: &Screen) -> String {
    let rows: Vec<[String; 8]> = screen.jobs.iter().map(columns).collect();
    let widest = widths(&JOBS, &rows).iter().sum::<u16>() + GAP * JOBS.len() as u16;
    let width = widest.max(heading(screen).chars().count() as u16);
    let area = Rect::new(0, 0, width, 3 + rows.len() as u16);
    let mut cells = Buffer::empty(area);
    let [head, _, body] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    Line::from(heading(screen)).render(head, &mut cells);
    jobs(screen, false, body, &mut cells);
    let line = |row: u16| {
        let symbols: String =
            (0..width).filter_map(|column| Some(cells.cell((column, row))?.symbol())).collect();
        symbols.trim_end().to_owned() + "\n"
    };
    (0..area.height).map(line).collect()
}

fn heading(screen: &Screen) -> String {
    let mut parts = vec![format!("Squadron at {}", screen.server)];
    if let Some(room) = &screen.room {
        let gpus = room.gpus.map(|gpus| format!(", {} of {gpus} GPUs", room.gpus_held)).unwrap_or_default();
        parts.push(format!("{} of {} slots{gpus} in use", room.slots_held, room.slots));
    }
    let count = |keep: &dyn Fn(JobState) -> bool| screen.jobs.iter().filter(|job| keep(job.state)).count();
    let (ended, waiting) = (count(&|state| state.is_final()), count(&|state| state == JobState::Queued));
    let at_work = screen.jobs.len() - ended - waiting;
    parts.push(format!("{at_work} at work, {waiting} waiting, {ended} ended"));
    parts.join("   ")
}

fn footing(screen: &Screen) -> String {
    if let Some(job) = &screen.asking {
        return format!("Cancel {job}? y: yes, any other key: no");
    }
    if let Some(sentence) = &screen.trouble {
        return format!("{sentence}; it is asked again each second");
    }
    if let Some(sentence) = &screen.said {
        return sentence.clone();
    }
    match screen.open {
        Some(_) => "q: quit   Esc: all jobs   c: cancel the job".into(),
        None => "q: quit   arrows: choose   Enter: its ranks   c: cancel it".into(),
    }
}

/// A job in the columns of the list.
fn columns(job: &Job) -> [String; 8] {
    let progress = job.progress.as_ref().filter(|_| !job.state.is_final());
    let trains = progress.is_some_and(|progress| progress.phase == Phase::Train);
    let slots = if job.gpus.is_empty() { job.workers.to_string() } else { format!("{} GPU", job.gpus.len()) };
    let eta = job.remaining_ms.map(|ms| figures::duration(std::time::Duration::from_millis(ms)));
    [
        job.id.clone(),
        job.state.to_string(),
        job.priority.to_string(),
        slots,
        job.units_per_second.filter(|_| trains).map(|rate| format!("{rate:.2}")).unwrap_or_default(),
        progress.and_then(|p| p.loss).map(|loss| format!("{loss:.4}")).unwrap_or_default(),
        eta.unwrap_or_default(),
        doing(job),
    ]
}

/// What is most worth knowing of a job in its state.
fn doing(job: &Job) -> String {
    match &job.progress {
        Some(p) if !job.state.is_final() && job.waits.is_none() => {
            let label = if p.label.is_empty() { String::new() } else { format!(" {}", p.label) };
            format!("{} {}{label} {}/{}", bar(p.done, p.total), p.phase, p.done, p.total)
        }
        None if !job.state.is_final() && job.waits.is_none() => job.reason.clone(),
        _ => report::summary(job),
    }
}

fn bar(done: u64, total: u64) -> String {
    let part = if total == 0 { 0.0 } else { (done as f64 / total as f64).min(1.0) };
    let full = (part * BAR as f64).floor() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

/// How wide each column must be for all that is in it.
fn widths<const N: usize>(heads: &[&str; N], rows: &[[String; N]]) -> [u16; N] {
    let width = |text: &str| text.chars().count() as u16;
    let mut widths = heads.map(width);
    for row in rows {
        for (widest, text) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(text));
        }
    }
    widths
}

/// A table whose last column has the rest of each line.
fn table<'a, const N: usize>(heads: [&'a str; N], rows: &[[String; N]], styles: &[Style]) -> Table<'a> {
    let widths = widths(&heads, rows);
    let column = |(at, width): (usize, &u16)| match at {
        last if last + 1 == N => Constraint::Fill(1),
        _ => Constraint::Length(*width),
    };
    let columns: Vec<Constraint> = widths.iter().enumerate().map(column).collect();
    let row = |(row, style): (&[String; N], &Style)| {
        let cell = |(at, text): (usize, &String)| {
            // The state is told by its word; its colour is an addition.
            let style = if at == 1 { *style } else { Style::new() };
            Cell::from(text.clone()).style(style)
        };
        Row::new(row.iter().enumerate().map(cell))
    };
    Table::new(rows.iter().zip(styles).map(row), columns)
        .header(Row::new(heads).bold())
        .column_spacing(GAP)
        .row_highlight_style(Style::new().reversed())
}

fn jobs(screen: &Screen, coloured: bool, area: Rect, cells: &mut Buffer) {
    if screen.jobs.is_empty() {
        return Line::from("no jobs yet; squadctl submit SPEC adds one").render(area, cells);
    }
    let rows: Vec<[String; 8]> = screen.jobs.iter().map(columns).collect();
    let styles: Vec<Style> =
        screen.jobs.iter().map(|job| if coloured { of_state(job.state) } else { Style::new() }).collect();
    // Plain text has no row that keys are about, and no style that would show it.
    let mut state = TableState::new().with_selected(screen.row());
    StatefulWidget::render(table(JOBS, &rows, &styles), area, cells, &mut state);
}

fn of_state(state: JobState) -> Style {
    match state {
        JobState::Succeeded => Style::new().fg(Color::Green),
        JobState::Failed => Style::new().fg(Color::Red),
        JobState::Running => Style::new().fg(Color::Cyan),
        JobState::Starting | JobState::Restarting | JobState::Stopping => Style::new().fg(Color::Yellow),
        JobState::Queued | JobState::Cancelled => Style::new(),
    }
}

fn ranks(job: &Job, now_unix_ms: u64, area: Rect, cells: &mut Buffer) {
    let [head, body] = Layout::vertical([Constraint::Length(2), Constraint::Fill(1)]).areas(area);
    Line::from(format!("{} is {}: {}", job.id, job.state, doing(job))).render(head, cells);
    if job.ranks.is_empty() {
        return Line::from("none of its workers is there").render(body, cells);
    }
    let row = |(number, rank): (usize, &crate::job::Rank)| {
        let heard = figures::duration(figures::between(rank.heard_unix_ms, now_unix_ms));
        let phase = rank.phase.map(|phase| phase.to_string()).unwrap_or_default();
        let done = rank.done.map(|done| done.to_string()).unwrap_or_default();
        [number.to_string(), rank.stage.clone(), phase, done, format!("{heard} ago")]
    };
    let rows: Vec<[String; 5]> = job.ranks.iter().enumerate().map(row).collect();
    Widget::render(table(RANKS, &rows, &vec![Style::new(); rows.len()]), body, cells);
}
