//! `top`, once as text, and live on a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;

use crate::scripted::Daemon;
use crate::{program, squadctl};

/// No wait of a test is longer.
const LIMIT: Duration = Duration::from_secs(30);
/// What leaves the other screen again.
const LEAVES: &str = "\u{1b}[?1049l";

#[test]
fn one_picture_is_plain_text_and_needs_no_terminal() {
    let daemon = Daemon::start();
    let call = daemon.call(&["top", "--once"]);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    let lines: Vec<&str> = call.stdout.lines().collect();
    let heading = format!("Squadron at {}   2 of 2 slots in use   1 at work, 1 waiting, 2 ended", daemon.url);
    assert_eq!((lines[0], lines.len()), (heading.as_str(), 7), "{}", call.stdout);
    assert!(lines[3].starts_with("long-3c  running"), "{}", call.stdout);
    assert!(lines[4].starts_with("long-4d  queued") && lines[4].ends_with("waits for 2 slots, 0 are free"));
    assert!(call.stdout.contains("EM 41.25  F1 55.50") && !call.stdout.contains('\u{1b}'), "{}", call.stdout);
}

#[test]
fn without_a_terminal_it_says_what_to_do_and_json_is_the_list() {
    let daemon = Daemon::start();
    let call = daemon.call(&["top"]);
    assert_eq!((call.code, call.stdout.as_str()), (2, ""));
    assert!(call.stderr.contains("top draws on a terminal, and here is none; --once"), "{}", call.stderr);
    for flags in [&["top", "--output", "json"][..], &["top", "--once", "--output", "json"]] {
        assert_eq!(daemon.call(flags).json(), daemon.call(&["list", "--output", "json"]).json());
    }
    let gone = squadctl(&["top", "--once", "--server", "http://127.0.0.1:1"]);
    assert_eq!(gone.code, 1);
    assert!(gone.stderr.contains("no daemon answers at"), "{}", gone.stderr);
}

/// `top` on a pseudo-terminal.
struct OnTerminal {
    child: Child,
    keyboard: File,
    picture: Receiver<Vec<u8>>,
    seen: String,
    /// Keeps the terminal there after the program has ended.
    terminal: OwnedFd,
    before: Termios,
}

impl OnTerminal {
    /// Starts it; nothing where there are no pseudo-terminals.
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn start(daemon: &Daemon) -> Option<Self> {
        let size = Winsize { ws_row: 20, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = match openpty(&size, None::<&Termios>) {
            Ok(pair) => pair,
            Err(error) => {
                eprintln!("SKIPPED: there is no pseudo-terminal here: {error}");
                return None;
            }
        };
        let before = tcgetattr(&slave).unwrap();
        let mut command: Command = program(&["top", "--server", &daemon.url]);
        command.env("TERM", "xterm-256color").stdin(slave.try_clone().unwrap());
        command.stdout(slave.try_clone().unwrap()).stderr(slave.try_clone().unwrap());
        let child = command.spawn().unwrap();
        let keyboard = File::from(master);
        let mut screen = keyboard.try_clone().unwrap();
        let (to, picture) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                if to.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Some(Self { child, keyboard, picture, seen: String::new(), terminal: slave, before })
    }

    /// Waits until something is drawn that was not there before.
    fn shows(&mut self, text: &str) {
        let start = Instant::now();
        while !self.seen.contains(text) {
            let left = LIMIT.checked_sub(start.elapsed()).unwrap_or_default();
            match self.picture.recv_timeout(left) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(error) => panic!("{text:?} was not drawn ({error}): {:?}", self.seen),
            }
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.seen.clear();
        self.keyboard.write_all(keys).unwrap();
    }

    /// Its exit code, once it has given the terminal back as it was.
    fn ends(mut self) -> Option<i32> {
        self.shows(LEAVES);
        let status = self.child.wait().unwrap();
        let after = tcgetattr(&self.terminal).unwrap();
        assert_eq!(after.local_flags, self.before.local_flags, "keys are lines again, and seen");
        assert_eq!(after.input_flags, self.before.input_flags);
        status.code()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn keys_choose_a_job_show_its_ranks_and_cancel_it() {
    let daemon = Daemon::start();
    let Some(mut top) = OnTerminal::start(&daemon) else { return };
    top.shows("long-4d");
    top.press(b"\r");
    top.shows("long-3c is running");
    top.press(b"c");
    top.shows("Cancel long-3c?");
    top.press(b"y");
    top.shows("was asked to stop");
    top.press(b"\x1b[D");
    top.shows("PRIORITY");
    top.press(b"q");
    assert_eq!(top.ends(), Some(0));
    assert!(daemon.call(&["get", "long-3c"]).stdout.contains("cancelled"));
}

#[test]
fn ctrl_c_and_a_kill_give_the_terminal_back() {
    let daemon = Daemon::start();
    let Some(mut top) = OnTerminal::start(&daemon) else { return };
    top.shows("long-4d");
    top.press(b"\x03");
    assert_eq!(top.ends(), Some(130));

    let Some(mut top) = OnTerminal::start(&daemon) else { return };
    top.shows("long-4d");
    kill(Pid::from_raw(top.child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(top.ends(), Some(130));
}
