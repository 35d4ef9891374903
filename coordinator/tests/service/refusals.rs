//! What is not taken, and the sentence that says why.

use serde_json::json;
use squad_coordinator::{ServeError, Server};
use squad_proto::pb;
use tonic::Code;

use crate::harness::{Service, config, folder, spec};

#[tokio::test]
async fn every_problem_of_a_spec_is_named_at_once() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let mut bad = spec("Bad Name", 1, 10.0);
    bad["train"] = json!({"epoch": 3, "batch_size": 0});
    let status = service.try_submit(&bad).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for part in ["name: found", "train.epoch: found", "did you mean epochs?", "train.batch_size: found 0"] {
        assert!(status.message().contains(part), "{part} is missing in {}", status.message());
    }
    let text = pb::SubmitRequest { spec_json: "{".into(), ..Default::default() };
    assert_eq!(service.grpc.submit(text).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(!folder.path().join("out").exists(), "nothing is left behind");
    service.stop().await;
}

#[tokio::test]
async fn every_missing_file_is_named_with_its_field() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 2).await;
    let mut bad = spec("succeed", 1, 10.0);
    bad["data"] = json!({"train": "none/train.json", "dev": "none/dev.json"});
    let status = service.try_submit(&bad).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for (field, file) in [("data.train", "none/train.json"), ("data.dev", "none/dev.json")] {
        let path = folder.path().join(file).display().to_string();
        let told = status.message().lines().any(|line| line.contains(field) && line.contains(&path));
        assert!(told, "{field} and {path} are missing in {}", status.message());
    }
    service.stop().await;
}

#[tokio::test]
async fn a_model_folder_under_the_root_becomes_absolute() {
    let folder = folder();
    std::fs::create_dir_all(folder.path().join("models/tiny")).unwrap();
    let mut service = Service::start(folder.path(), 1).await;
    let mut own = spec("succeed", 1, 10.0);
    own["model"] = json!("models/tiny");
    for (model, expected) in [
        ("models/tiny", folder.path().join("models/tiny").display().to_string()),
        ("some/model", "some/model".into()),
    ] {
        own["model"] = json!(model);
        let job = service.submit(&own).await;
        let resolved: serde_json::Value = serde_json::from_str(&service.get(&job).await.spec_json).unwrap();
        assert_eq!(resolved["model"].as_str(), Some(expected.as_str()));
        service.end(&job).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn unknown_jobs_and_ranks_are_said_to_be_so() {
    let folder = folder();
    let mut service = Service::start(folder.path(), 1).await;
    let none = String::from("none-000000");
    let status = service.grpc.get(pb::GetRequest { job: none.clone() }).await.unwrap_err();
    assert!(status.code() == Code::NotFound && status.message().contains(&none), "{status}");
    let watch = pb::WatchRequest { job: none.clone(), after_sequence: 0 };
    assert_eq!(service.grpc.watch(watch).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(
        service.grpc.cancel(pb::CancelRequest { job: none }).await.unwrap_err().code(),
        Code::NotFound
    );
    let job = service.submit(&spec("succeed", 1, 10.0)).await;
    let logs = pb::LogsRequest { job, rank: Some(1), ..Default::default() };
    assert_eq!(service.grpc.logs(logs).await.unwrap_err().code(), Code::InvalidArgument);
    service.stop().await;
}

#[tokio::test]
async fn only_loopback_addresses_are_served() {
    let folder = folder();
    let refused =
        Server::bind(config(folder.path(), 1), "0.0.0.0:0".parse().unwrap(), None).await.err().unwrap();
    assert!(matches!(refused, ServeError::NotLoopback(_)), "{refused}");
    assert!(refused.to_string().contains("0.0.0.0:0"), "{refused}");
}
