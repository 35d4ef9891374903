//! Asks the daemon again and again.

use std::time::Duration;

use squad_proto::pb;
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;

use crate::client::Client;
use crate::job::Job;

/// Time between two questions. Fixed: it only paces looks.
const EVERY: Duration = Duration::from_secs(1);
/// A daemon that takes longer is said not to answer; it is asked again. Fixed: it is about no one job.
const ANSWER: Duration = Duration::from_secs(5);

/// Something new for the screen.
pub(super) enum News {
    /// All jobs, what the daemon has for workers, and the job whose ranks are shown.
    Jobs(Vec<Job>, Option<pb::Room>, Option<Box<Job>>),
    /// The daemon does not answer.
    Trouble(String),
    /// What came of a wish.
    Said(String),
}

/// Asks until nobody wants to hear it. `open` names the job whose ranks are shown.
pub(super) async fn ask(client: Client, mut open: watch::Receiver<Option<String>>, to: Sender<News>) {
    loop {
        let of = open.borrow_and_update().clone();
        let news = match tokio::time::timeout(ANSWER, look(&client, of)).await {
            Ok(Ok(news)) => news,
            Ok(Err(error)) => News::Trouble(format!("{error:#}")),
            Err(_) => News::Trouble(format!("the daemon did not answer for {} s", ANSWER.as_secs())),
        };
        if to.send(news).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            changed = open.changed() => if changed.is_err() { return },
        }
    }
}

async fn look(client: &Client, of: Option<String>) -> anyhow::Result<News> {
    let (jobs, room) = client.overview().await?;
    let whole = match of {
        Some(job) => Some(Box::new(client.get(&job).await?)),
        None => None,
    };
    Ok(News::Jobs(jobs, room, whole))
}
