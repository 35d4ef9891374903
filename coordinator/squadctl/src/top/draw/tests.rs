//! Pictures of screens, and what keys make of them.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Modifier;
use squad_proto::{FailureCode, FailureReport, Progress, pb};

use super::super::news::News;
use super::super::screen::Wish;
use super::*;
use crate::job::Rank;

fn job(id: &str, state: JobState) -> Job {
    let message = pb::Job {
        id: id.into(),
        state: pb::JobState::from(state).into(),
        created_unix_ms: 1_000,
        finished_unix_ms: state.is_final().then_some(9_000),
        workers: 2,
        ..Default::default()
    };
    Job::try_from(message).unwrap()
}

/// One job in each part of the list.
fn screen() -> Screen {
    let mut running = job("running-1a", JobState::Running);
    let mut progress = Progress::new(Phase::Train, 60, 240);
    progress.loss = Some(1.23456);
    running.progress = Some(progress);
    (running.units_per_second, running.remaining_ms, running.gpus) = (Some(8.0), Some(22_500), vec![0, 1]);
    let mut waiting = job("wide-2b", JobState::Queued);
    (waiting.waits, waiting.priority, waiting.workers) = (Some("waits for 4 slots, 2 are free".into()), 5, 4);
    let mut behind = job("small-3c", JobState::Queued);
    behind.waits = Some("behind wide-2b, which waits for 4 slots, 2 are free".into());
    let mut failed = job("bad-4d", JobState::Failed);
    failed.failure = Some(FailureReport::new(FailureCode::Data, "no"));
    let mut starting = job("new-5e", JobState::Starting);
    starting.reason = "launching 2 workers".into();
    let room = pb::Room { slots: 4, slots_held: 2, gpus: Some(2), gpus_held: 2 };
    let mut screen = Screen::new("http://box:7311".into());
    screen.took(vec![failed, behind, waiting, starting, running], Some(room));
    screen
}

/// The lines of a terminal of this size.
fn drawn(screen: &Screen, width: u16, height: u16) -> (Vec<String>, Buffer) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(screen, true, frame.area(), frame.buffer_mut())).unwrap();
    let cells = terminal.backend().buffer().clone();
    let line = |row| {
        let symbols: String = (0..width).map(|column| cells[(column, row)].symbol()).collect();
        symbols.trim_end().to_owned()
    };
    ((0..height).map(line).collect(), cells)
}

fn press(screen: &mut Screen, code: KeyCode) -> Wish {
    screen.press(Some(KeyEvent::new(code, KeyModifiers::NONE)))
}

#[test]
fn jobs_at_work_come_first_then_those_that_wait_in_their_order() {
    let expected = [
        "Squadron at http://box:7311   2 of 4 slots, 2 of 2 GPUs in use   2 at work, 2 waiting, 1 ended",
        "",
        "JOB         STATE     PRIORITY  SLOTS  STEPS/S  LOSS    ETA   PROGRESS",
        "new-5e      starting  0         2                             launching 2 workers",
        "running-1a  running   0         2 GPU  8.00     1.2346  22 s  ███░░░░░░░░░ train 60/240",
        "wide-2b     queued    5         4                             waits for 4 slots, 2 are free",
        "small-3c    queued    0         2                             behind wide-2b, which waits for 4 slots, 2 are free",
        "bad-4d      failed    0         2                             SQ-001",
        "",
        "q: quit   arrows: choose   Enter: its ranks   c: cancel it",
    ];
    assert_eq!(drawn(&screen(), 120, 10).0, expected);
    // Plain text has no keys, and no styles.
    assert_eq!(text(&screen()).lines().collect::<Vec<_>>(), expected[..8]);
}

#[test]
fn a_narrow_terminal_shows_the_chosen_row_whatever_there_is_room_for() {
    let mut screen = screen();
    press(&mut screen, KeyCode::End);
    let (lines, cells) = drawn(&screen, 40, 6);
    // Of an identifier there is what has room.
    assert!(lines[3..5].iter().any(|line| line.starts_with("bad-")), "{lines:#?}");
    let row = lines.iter().position(|line| line.starts_with("bad-")).unwrap() as u16;
    assert!(cells[(0, row)].modifier.contains(Modifier::REVERSED));
    for (width, height) in [(1, 1), (3, 2), (20, 3), (500, 80)] {
        drawn(&screen, width, height);
    }
}

#[test]
fn what_is_chosen_stays_chosen_where_others_come_and_go() {
    let mut screen = screen();
    for _ in 0..3 {
        press(&mut screen, KeyCode::Down);
    }
    assert_eq!(screen.jobs[screen.row()].id, "small-3c");
    press(&mut screen, KeyCode::Up);
    assert_eq!(screen.jobs[screen.row()].id, "wide-2b");
    let mut jobs = screen.jobs.clone();
    jobs.retain(|job| job.id != "new-5e");
    screen.hear(News::Jobs(jobs, None, None));
    assert_eq!(screen.jobs[screen.row()].id, "wide-2b");
}

#[test]
fn enter_shows_the_ranks_and_escape_all_jobs_again() {
    let mut screen = screen();
    press(&mut screen, KeyCode::Down);
    assert_eq!(press(&mut screen, KeyCode::Enter), Wish::Open(Some("running-1a".into())));
    assert!(drawn(&screen, 80, 8).0.contains(&"none of its workers is there".to_owned()));
    let mut whole = screen.jobs[1].clone();
    let heard_unix_ms = screen.now_unix_ms + 3_600_000;
    let rank = Rank { stage: "ready".into(), phase: Some(Phase::Train), done: Some(60), heard_unix_ms };
    whole.ranks = vec![rank.clone(), Rank { stage: "gone".into(), phase: None, done: None, ..rank }];
    screen.hear(News::Jobs(screen.jobs.clone(), None, Some(Box::new(whole.clone()))));
    let (lines, _) = drawn(&screen, 80, 8);
    assert_eq!(lines[2], "running-1a is running: ███░░░░░░░░░ train 60/240");
    assert_eq!(lines[5], "0     ready  train  60    0 ms ago");
    assert_eq!(lines[6], "1     gone                0 ms ago");
    assert_eq!(press(&mut screen, KeyCode::Esc), Wish::Open(None));
    // What was asked for before it was closed comes too late.
    screen.hear(News::Jobs(screen.jobs.clone(), None, Some(Box::new(whole))));
    assert!(drawn(&screen, 80, 10).0[2].starts_with("JOB"));
    assert_eq!(press(&mut screen, KeyCode::Esc), Wish::Leave);
}

#[test]
fn a_job_is_cancelled_only_after_a_question() {
    let mut screen = screen();
    press(&mut screen, KeyCode::Down);
    assert_eq!(press(&mut screen, KeyCode::Char('c')), Wish::Nothing);
    let (lines, cells) = drawn(&screen, 80, 10);
    assert_eq!(lines[9], "Cancel running-1a? y: yes, any other key: no");
    assert!(cells[(0, 9)].modifier.contains(Modifier::REVERSED));
    assert_eq!(press(&mut screen, KeyCode::Char('q')), Wish::Nothing, "that was no");
    press(&mut screen, KeyCode::Char('c'));
    assert_eq!(press(&mut screen, KeyCode::Char('y')), Wish::Cancel("running-1a".into()));
    screen.hear(News::Said("running-1a was asked to stop".into()));
    assert_eq!(drawn(&screen, 80, 10).0[9], "running-1a was asked to stop");
    press(&mut screen, KeyCode::End);
    press(&mut screen, KeyCode::Char('c'));
    assert_eq!(drawn(&screen, 80, 10).0[9], "bad-4d has ended");
    assert_eq!(press(&mut screen, KeyCode::Char('y')), Wish::Nothing);
}

#[test]
fn a_daemon_that_is_away_leaves_the_last_picture_and_a_sentence() {
    let mut screen = screen();
    screen.hear(News::Trouble("the connection broke".into()));
    let (lines, _) = drawn(&screen, 120, 10);
    assert!(lines[4].starts_with("running-1a"), "{lines:#?}");
    assert_eq!(lines[9], "the connection broke; it is asked again each second");
    screen.hear(News::Jobs(Vec::new(), None, None));
    let (lines, _) = drawn(&screen, 120, 10);
    assert_eq!(lines[2], "no jobs yet; squadctl submit SPEC adds one");
    assert!(lines[9].starts_with("q: quit"), "{lines:#?}");
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.press(Some(interrupt)), Wish::Interrupt);
    assert_eq!(press(&mut screen, KeyCode::Enter), Wish::Nothing, "there is no job to open");
}
