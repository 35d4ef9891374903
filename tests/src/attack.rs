//! What a stranger may try against a daemon, each answered with what came of it.
//!
//! Nothing here asserts: the attacks run in a process of their own where the stranger is another machine.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use squad_proto::connect::{Bearer, Trust, as_worker, endpoint};
use squad_proto::pb::{self, from_worker::Body, jobs_client::JobsClient, workers_client::WorkersClient};
use squad_proto::{JobId, spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// No attack waits longer for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who is attacked, and what the attacker has got hold of.
#[derive(Clone, Debug)]
pub struct Target {
    /// The daemon, `http://...` or `https://...`.
    pub url: String,
    /// Its authority's certificate.
    pub ca: Option<PathBuf>,
    /// A token of the role `read`.
    pub reader: String,
    /// A token of the role `submit`.
    pub submitter: String,
    /// The job that runs.
    pub job: String,
    /// The token of another job's workers.
    pub other_token: String,
    /// The first bytes of a worker's session with the daemon.
    pub recorded: PathBuf,
    /// A spec that would be taken.
    pub spec: PathBuf,
    /// How many connections to open and leave open.
    pub idle: usize,
}

impl Target {
    /// As a document, for another process.
    pub fn to_json(&self) -> Value {
        json!({
            "url": self.url, "ca": self.ca, "reader": self.reader, "submitter": self.submitter, "job": self.job,
            "other_token": self.other_token, "recorded": self.recorded, "spec": self.spec, "idle": self.idle,
        })
    }

    /// From such a document.
    pub fn from_json(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Self {
            url: text("url"),
            ca: value["ca"].as_str().map(PathBuf::from),
            reader: text("reader"),
            submitter: text("submitter"),
            job: text("job"),
            other_token: text("other_token"),
            recorded: text("recorded").into(),
            spec: text("spec").into(),
            idle: value["idle"].as_u64().unwrap_or(0) as usize,
        }
    }

    fn trust(&self) -> Trust {
        let read = |path: &PathBuf| std::fs::read_to_string(path).expect("the authority's certificate");
        Trust { certificates: self.ca.as_ref().map(read), identity: None }
    }

    async fn channel(&self) -> Result<Channel, Status> {
        let endpoint = endpoint(&self.url, &self.trust()).expect("an address");
        endpoint.connect().await.map_err(|error| Status::unavailable(format!("{error:?}")))
    }

    async fn jobs(&self) -> Result<JobsClient<Channel>, Status> {
        Ok(JobsClient::new(self.channel().await?))
    }

    fn shown<T>(&self, token: Option<&str>, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = token {
            let endpoint = endpoint(&self.url, &self.trust()).expect("an address");
            Bearer::new(token, &endpoint).expect("a private connection").put(&mut request);
        }
        request
    }

    async fn list(&self, token: Option<&str>) -> Result<(), Status> {
        self.jobs().await?.list(self.shown(token, pb::ListRequest::default())).await.map(drop)
    }

    async fn submit(&self, token: &str, spec_json: String) -> Result<(), Status> {
        let request = pb::SubmitRequest { spec_json, ..Default::default() };
        self.jobs().await?.submit(self.shown(Some(token), request)).await.map(drop)
    }

    /// A worker's session in the name of the running job.
    async fn intrude(&self, token: &str) -> Result<(), Status> {
        let hello = pb::Hello {
            slot: 0,
            pid: 1,
            host: "elsewhere".into(),
            ring_address: "127.0.0.1:1".into(),
            rejoins: false,
        };
        let fence = pb::Fence { job: self.job.clone(), generation: 1 };
        let messages = [pb::FromWorker { fence: Some(fence), body: Some(Body::Hello(hello)) }];
        let stream = tokio_stream::iter(messages).chain(tokio_stream::pending());
        let call = as_worker(stream, &JobId(self.job.clone()), token).expect("a token");
        let mut orders = WorkersClient::new(self.channel().await?).session(call).await?.into_inner();
        while orders.message().await?.is_some() {}
        Ok(())
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let address = self.url.rsplit("//").next().unwrap_or_default();
        tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await.map_err(|_| ErrorKind::TimedOut)?
    }

    /// The spec with other paths.
    fn spec_with(&self, key: &str, path: &str) -> String {
        let text = std::fs::read_to_string(&self.spec).expect("a spec");
        let mut spec = spec::parse(&text, "spec").expect("a spec");
        spec[key] = path.into();
        spec.to_string()
    }
}

/// What came of a call: its status and sentence.
fn told(outcome: Result<Result<(), Status>, tokio::time::error::Elapsed>) -> Value {
    match outcome {
        Ok(Ok(())) => json!({"status": "Ok"}),
        Ok(Err(status)) => json!({"status": format!("{:?}", status.code()), "message": status.message()}),
        Err(_) => json!({"status": "no answer"}),
    }
}

/// Waits until the other side hangs up; gives the seconds that it took, or nothing.
async fn hung_up(mut stream: TcpStream) -> Option<f64> {
    let begun = Instant::now();
    let mut bytes = [0; 4096];
    let ended = async { while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {} };
    tokio::time::timeout(PATIENCE, ended).await.ok().map(|()| begun.elapsed().as_secs_f64())
}

/// First bytes of what is never said whole: HTTP/2, the same with half a request, TLS, HTTP/1.
const BEGINNINGS: [&[u8]; 4] = [
    b"PRI * HTTP/2.0\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x40\x01\x04\0\0\0\x01",
    b"\x16\x03\x01\x02\0\x01",
    b"GET / HTT",
];

/// Connections that send a byte now and then, and when each was hung up on.
async fn drip(target: &Target) -> Value {
    let mut ends = Vec::new();
    for beginning in BEGINNINGS.iter().cycle().take(20) {
        let Ok(mut stream) = target.connect().await else { continue };
        ends.push(tokio::spawn(async move {
            let begun = Instant::now();
            let mut byte = [0; 1];
            let mut rest = beginning.iter().cycle();
            while begun.elapsed() < PATIENCE {
                if stream.write_all(&[*rest.next().unwrap_or(&0)]).await.is_err() {
                    return Some(begun.elapsed().as_secs_f64());
                }
                let heard = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut byte)).await;
                if heard.is_ok_and(|read| !matches!(read, Ok(1))) {
                    return Some(begun.elapsed().as_secs_f64());
                }
            }
            None
        }));
    }
    ended(ends).await
}

/// Connections that say nothing, all at once.
async fn idle(target: &Target) -> Value {
    let mut ends = Vec::new();
    for _ in 0..target.idle {
        if let Ok(stream) = target.connect().await {
            ends.push(tokio::spawn(hung_up(stream)));
        }
    }
    ended(ends).await
}

/// How many there were, how many were never hung up on, and the longest that one lived.
async fn ended(ends: Vec<tokio::task::JoinHandle<Option<f64>>>) -> Value {
    let (opened, mut left, mut longest) = (ends.len(), 0, 0.0_f64);
    for end in ends {
        match end.await.ok().flatten() {
            Some(seconds) => longest = longest.max(seconds),
            None => left += 1,
        }
    }
    json!({"opened": opened, "left": left, "longest_s": longest})
}

/// The bytes of a true session once more, on a connection of one's own.
async fn replay(target: &Target) -> Value {
    let bytes = std::fs::read(&target.recorded).unwrap_or_default();
    let Ok(mut stream) = target.connect().await else { return json!({"ended": "no connection"}) };
    // It may be refused before all is said.
    stream.write_all(&bytes).await.ok();
    json!({"bytes": bytes.len(), "ended_s": hung_up(stream).await})
}

/// What came of a call that is given up after a while.
async fn tried(call: impl Future<Output = Result<(), Status>>) -> Value {
    told(tokio::time::timeout(PATIENCE, call).await)
}

async fn all(target: &Target) -> Value {
    let wrong = format!("squad_{}", "0".repeat(64));
    let (reader, submitter) = (target.reader.as_str(), target.submitter.as_str());
    json!({
        "no_token": tried(target.list(None)).await,
        "wrong_token": tried(target.list(Some(&wrong))).await,
        "small_role": tried(target.submit(reader, target.spec_with("output_dir", "x"))).await,
        "other_job": tried(target.intrude(&target.other_token)).await,
        "user_token": tried(target.intrude(submitter)).await,
        "oversized": tried(target.submit(submitter, " ".repeat(20 << 20))).await,
        "escape_up": tried(target.submit(submitter, target.spec_with("output_dir", "../elsewhere"))).await,
        "escape_root": tried(target.submit(submitter, target.spec_with("model", "/etc"))).await,
        "replayed": replay(target).await,
        "slow": drip(target).await,
        "idle": idle(target).await,
    })
}

/// Tries everything, one after the other; gives what came of each.
pub fn attack(target: &Target) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(all(target))
}
