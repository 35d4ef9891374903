//! Results that a worker brings to a coordinator that does not see them: nobody else's, and nowhere else.

use sha2::{Digest, Sha256};
use squad_proto::connect::as_worker;
use squad_proto::pb::file_part::Part;
use squad_proto::pb::{self, workers_client::WorkersClient};
use squad_proto::{JobId, JobState};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{Service, folder, spec};

/// Somebody who brings results.
struct Courier {
    client: WorkersClient<Channel>,
    job: JobId,
    token: String,
    generation: u32,
    slot: u32,
}

impl Courier {
    fn fence(&self) -> Option<pb::Fence> {
        Some(pb::Fence { job: self.job.to_string(), generation: self.generation })
    }

    async fn offer(&mut self, mark: &str, files: &[(&str, u64)]) -> Result<pb::OfferReply, Status> {
        let files = files.iter().map(|(name, bytes)| pb::OfferedFile { name: (*name).into(), bytes: *bytes });
        let offer = pb::OfferRequest {
            fence: self.fence(),
            slot: self.slot,
            mark: mark.into(),
            files: files.collect(),
            host: "elsewhere\n".into(),
        };
        let call = as_worker(offer, &self.job, &self.token).unwrap();
        self.client.offer(call).await.map(tonic::Response::into_inner)
    }

    /// Brings a file of which it says that it has so many bytes and this content.
    async fn bring(
        &mut self,
        name: &str,
        (bytes, said): (u64, &str),
        text: &str,
        last: bool,
    ) -> Result<(), Status> {
        let head = pb::FileHead { fence: self.fence(), slot: self.slot, name: name.into(), bytes };
        let sha256 = hex::encode(Sha256::digest(said));
        let parts =
            [Part::Head(head), Part::Data(text.as_bytes().to_vec()), Part::End(pb::FileEnd { sha256, last })]
                .map(|part| pb::FilePart { part: Some(part) });
        let call = as_worker(tokio_stream::iter(parts), &self.job, &self.token).unwrap();
        let mut answers = self.client.deliver(call).await?.into_inner();
        answers.message().await.map(|answer| assert!(answer.is_some()))
    }
}

#[tokio::test]
async fn results_come_from_rank_0_under_known_names_and_whole() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 3).await;
    let job = service.submit(&spec("hold", 2, 10.0)).await;
    service.at_work(&job).await;
    let token = service.said(&job, "token").await.remove(0);
    let client = WorkersClient::connect(format!("http://{}", service.address)).await.unwrap();
    let mut courier = Courier { client, job: JobId(job.clone()), token, generation: 1, slot: 0 };
    let files = [("results.json", 2), ("../../escaped", 1), ("eval/predictions.json", 2), ("train.json", 1)];

    // Others than rank 0 of the present life.
    for (generation, slot, token, code) in [
        (2, 0, courier.token.clone(), Code::FailedPrecondition),
        (1, 1, courier.token.clone(), Code::FailedPrecondition),
        (1, 7, courier.token.clone(), Code::FailedPrecondition),
        (1, 0, "0".repeat(32), Code::PermissionDenied),
    ] {
        let client = courier.client.clone();
        let mut other = Courier { client, job: courier.job.clone(), token, generation, slot };
        assert_eq!(other.offer("", &files).await.unwrap_err().code(), code, "{generation} {slot}");
        let refused = other.bring("results.json", (2, "{}"), "{}", true).await;
        assert_eq!(refused.unwrap_err().code(), code, "{generation} {slot}");
    }

    let output = folder.path().join("out/hold");
    let mark = "0123456789abcdef".repeat(2);
    std::fs::write(output.join(format!(".mark-{mark}")), &mark).unwrap();
    assert!(courier.offer(&mark, &files).await.unwrap().seen, "one folder: nothing needs to travel");
    let reply = courier.offer(&"0".repeat(32), &files).await.unwrap();
    assert_eq!(
        (reply.seen, &reply.wanted[..]),
        (false, &["eval/predictions.json", "results.json"].map(String::from)[..])
    );

    let eval = "eval/predictions.json";
    for (name, said, text, code) in [
        ("../../escaped", (2, "{}"), "{}", Code::Internal),
        ("results.json/", (2, "{}"), "{}", Code::Internal),
        (eval, (1, "{}"), "{}", Code::InvalidArgument),
        ("eval/na_prob.json", (2, "{}"), "[]", Code::DataLoss),
        ("metrics.jsonl", (u64::MAX, "{}"), "{}", Code::ResourceExhausted),
    ] {
        let refused = courier.bring(name, said, text, true).await.unwrap_err();
        assert_eq!(refused.code(), code, "{name}: {refused}");
    }
    assert!(!output.join("results.json").exists() && !output.join("eval").exists(), "nothing is half there");
    assert!(!folder.path().join("escaped").exists());

    // Asked again, it begins anew.
    courier.offer(&"0".repeat(32), &files).await.unwrap();
    courier.bring(eval, (2, "{}"), "{}", false).await.unwrap();
    courier.bring("results.json", (2, "[]"), "[]", true).await.unwrap();
    assert_eq!(std::fs::read_to_string(output.join("results.json")).unwrap(), "[]");
    assert_eq!(std::fs::read_to_string(output.join(eval)).unwrap(), "{}");
    assert!(!output.join("eval/na_prob.json").exists());
    let elsewhere = service.get(&job).await.elsewhere.unwrap();
    assert_eq!(
        (elsewhere.host.as_str(), elsewhere.brought),
        ("elsewhere", vec!["eval".into(), "results.json".into()])
    );
    assert_eq!(service.get(&job).await.state(), pb::JobState::from(JobState::Running));
    service.cancel(&job).await;
    service.end(&job).await;
    service.stop().await;
}
