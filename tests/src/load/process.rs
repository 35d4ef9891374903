//! What a daemon uses and shows.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// Processor time of all its threads.
    pub(super) cpu: Duration,
    /// Resident memory now, in bytes.
    pub(super) resident: u64,
    /// The most that there was.
    pub(super) most_resident: u64,
}

impl Usage {
    /// Of a process that lives.
    pub(super) fn of(pid: i32) -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).expect("it lives");
        let stat = read("stat");
        // The name may have spaces; it is in parentheses, and the state follows.
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        let ticks: u64 =
            fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
        let status = read("status");
        let kib = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
        };
        Self {
            // Linux counts in hundredths of a second wherever users see it.
            cpu: Duration::from_millis(ticks * 10),
            resident: kib("VmRSS") * 1024,
            most_resident: kib("VmHWM") * 1024,
        }
    }
}

/// What the page's address (`HOST:PORT`) gives for a path.
async fn get(page: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(page).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {page}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200") && !head.contains("chunked"), "{path}: {head}");
    body.to_owned()
}

pub(super) async fn get_json(page: &str, path: &str) -> Value {
    serde_json::from_str(&get(page, path).await).expect("JSON")
}

/// A counter that Prometheus is told, without labels.
pub(super) async fn metric(page: &str, name: &str) -> u64 {
    let all = get(page, "/metrics").await;
    let value = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect("the counter");
    value.parse().expect("a number")
}
