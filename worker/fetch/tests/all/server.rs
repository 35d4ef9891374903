//! A small HTTP server whose files can break off, stall, fail and redirect.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// One file of the server.
#[derive(Clone, Default)]
pub(crate) struct Route {
    pub(crate) body: Vec<u8>,
    /// Sent along with every answer.
    pub(crate) headers: Vec<(String, String)>,
    /// What the first requests meet, in turn; later ones are served properly.
    pub(crate) faults: Vec<Fault>,
    /// Leads elsewhere in place of a body.
    pub(crate) location: Option<String>,
    /// Ignores Range, as simple servers do.
    pub(crate) no_ranges: bool,
    /// Pause before the body.
    pub(crate) delay: Duration,
}

#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// Closes the connection after so many bytes of the body.
    Cut(usize),
    /// Answers with this status and no body.
    Status(u16),
    /// Sends nothing for so long, then closes.
    Silence(Duration),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

pub(crate) struct Server {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    routes: HashMap<String, Route>,
    requests: Vec<Request>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(&stream, &state));
            }
        });
        Self { address, state }
    }

    pub(crate) fn put(&self, path: &str, route: Route) {
        self.state.lock().unwrap().routes.insert(path.to_owned(), route);
    }

    pub(crate) fn put_body(&self, path: &str, body: impl Into<Vec<u8>>) {
        self.put(path, Route { body: body.into(), ..Route::default() });
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// The requests so far; forgets them.
    pub(crate) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

/// Answers one request and closes.
fn serve(stream: &TcpStream, state: &Mutex<State>) {
    let Some(request) = read_request(stream) else { return };
    let (route, fault) = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        let Some(route) = state.routes.get_mut(&request.path) else {
            respond(stream, 404, &[], b"");
            return;
        };
        let fault = if route.faults.is_empty() { None } else { Some(route.faults.remove(0)) };
        (route.clone(), fault)
    };
    thread::sleep(route.delay);
    let mut headers = route.headers.clone();
    match fault {
        Some(Fault::Status(status)) => return respond(stream, status, &headers, b""),
        Some(Fault::Silence(time)) => return thread::sleep(time),
        _ => {}
    }
    if let Some(location) = &route.location {
        headers.push(("Location".into(), location.clone()));
        return respond(stream, 302, &headers, b"moved");
    }
    let total = route.body.len();
    let start = request.range.filter(|_| !route.no_ranges).map(|range| {
        range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse::<usize>().unwrap()
    });
    let (status, body) = match start {
        Some(start) if start >= total => return respond(stream, 416, &headers, b""),
        Some(start) => {
            headers.push(("Content-Range".into(), format!("bytes {start}-{}/{total}", total - 1)));
            (206, &route.body[start..])
        }
        None => (200, &route.body[..]),
    };
    headers.push(("Content-Length".into(), body.len().to_string()));
    let sent = if let Some(Fault::Cut(bytes)) = fault { &body[..bytes.min(body.len())] } else { body };
    respond(stream, status, &headers, sent);
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let (mut range, mut authorization) = (None, None);
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => range = Some(value.to_owned()),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(Request { path, range, authorization })
}

/// Sends an answer; the client may be gone.
fn respond(mut stream: &TcpStream, status: u16, headers: &[(String, String)], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok();
}
