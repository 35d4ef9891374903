//! Tokens and roles: who is let in, to what, and whose jobs are whose.

use std::path::Path;

use serde_json::json;
use squad_coordinator::{Role, TokenFile};
use squad_proto::pb::{self, jobs_client::JobsClient};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::{Service, config, folder, spec};
use crate::web::{Answer, get, request};

/// A service that asks for tokens, and where they are made.
async fn guarded(root: &Path) -> (Service, TokenFile) {
    let tokens = TokenFile::of(&root.join("state"));
    (Service::with(config(root, 2)).await, tokens)
}

/// A question with a token.
fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

type Jobs = JobsClient<Channel>;

async fn list(jobs: &mut Jobs, token: &str) -> Result<usize, Status> {
    Ok(jobs.list(with(token, pb::ListRequest::default())).await?.into_inner().jobs.len())
}

async fn submit(jobs: &mut Jobs, token: &str) -> Result<String, Status> {
    let request = pb::SubmitRequest { spec_json: spec("hold", 1, 10.0).to_string(), ..Default::default() };
    Ok(jobs.submit(with(token, request)).await?.into_inner().job)
}

async fn cancel(jobs: &mut Jobs, token: &str, job: &str) -> Result<pb::Job, Status> {
    Ok(jobs.cancel(with(token, pb::CancelRequest { job: job.into() })).await?.into_inner())
}

/// The count of a kind of refusal.
async fn refused(service: &Service, admin: &str, reason: &str) -> u64 {
    let headers = format!("Host: {}\r\nAuthorization: Bearer {admin}\r\n", service.web);
    let text = request(service.web, "GET /metrics", &headers, "").await.body;
    let name = format!("squadron_refused_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_role_may_do_what_it_says_and_nothing_more() {
    let folder = folder();
    let (mut service, tokens) = guarded(folder.path()).await;
    assert!(service.grpc.list(pb::ListRequest::default()).await.is_ok(), "without a token everybody may");
    let make = |name: &str, role| tokens.create(name, role).unwrap();
    let (reader, ada, bob) = (make("eve", Role::Read), make("ada", Role::Submit), make("bob", Role::Submit));
    let admin = make("root", Role::Admin);
    let mut jobs = service.grpc.clone();

    let nobody = jobs.list(pb::ListRequest::default()).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated, "{nobody}");
    assert!(nobody.message().contains("SQUADCTL_TOKEN"), "{nobody}");
    let wrong = list(&mut jobs, &format!("{reader}0")).await.unwrap_err();
    assert_eq!(wrong.code(), Code::Unauthenticated, "{wrong}");

    assert_eq!(list(&mut jobs, &reader).await.unwrap(), 0);
    let denied = submit(&mut jobs, &reader).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(denied.message(), "this needs a token of the role submit, and eve has the role read");

    let job = submit(&mut jobs, &ada).await.unwrap();
    let shown = jobs.get(with(&reader, pb::GetRequest { job: job.clone() })).await.unwrap().into_inner();
    assert_eq!(shown.submitter, "ada");
    for token in [&reader, &bob] {
        assert_eq!(cancel(&mut jobs, token, &job).await.unwrap_err().code(), Code::PermissionDenied);
    }
    cancel(&mut jobs, &ada, &job).await.unwrap();
    let job = submit(&mut jobs, &ada).await.unwrap();
    cancel(&mut jobs, &admin, &job).await.unwrap();

    tokens.revoke("ada").unwrap();
    assert_eq!(submit(&mut jobs, &ada).await.unwrap_err().code(), Code::Unauthenticated, "at once");
    assert_eq!((refused(&service, &admin, "token").await, refused(&service, &admin, "role").await), (3, 3));
    service.stop().await;
}

/// Posts to the page's API, with these headers besides `Host`.
async fn post(service: &Service, path: &str, headers: &str, body: &str) -> Answer {
    let headers = format!("Host: {}\r\n{headers}", service.web);
    request(service.web, &format!("POST {path}"), &headers, body).await
}

#[tokio::test]
async fn the_page_asks_for_a_login_and_forgets_it() {
    let folder = folder();
    let (service, tokens) = guarded(folder.path()).await;
    let (reader, ada) =
        (tokens.create("eve", Role::Read).unwrap(), tokens.create("ada", Role::Submit).unwrap());
    let mut jobs = service.grpc.clone();
    let job = submit(&mut jobs, &ada).await.unwrap();
    let at = service.web;
    for path in ["/api/jobs", "/api/about", "/metrics", "/api/live", &format!("/api/jobs/{job}/logs")] {
        assert_eq!(get(at, path).await.status, 401, "{path}");
    }
    for path in ["/", "/assets/main.js", "/healthz"] {
        assert_eq!(get(at, path).await.status, 200, "{path}");
    }

    let own = format!("Origin: http://{at}\r\n");
    let login = |token: &str| json!({"token": token}).to_string();
    for (headers, body, status) in [
        (own.as_str(), login("squad_wrong"), 401),
        (own.as_str(), "squad_wrong".into(), 400),
        ("Origin: http://evil.example\r\n", login(&ada), 403),
        ("", login(&ada), 403),
        (own.as_str(), login(&"x".repeat(10_000)), 400),
    ] {
        let answer = post(&service, "/api/login", headers, &body).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(!answer.body.contains("squad_wrong"), "{}", answer.body);
    }
    let cookie_of = async |token: &str| {
        let answer = post(&service, "/api/login", &own, &login(token)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let set = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap().to_owned();
        assert!(set.contains("httponly") && set.contains("samesite=strict"), "{set}");
        format!("Cookie: {}\r\n", set.split(';').next().unwrap())
    };
    let (eve, lovelace) = (cookie_of(&reader).await, cookie_of(&ada).await);
    let about = request(at, "GET /api/about", &format!("Host: {at}\r\n{lovelace}"), "").await.json();
    assert_eq!((&about["user"], &about["may_change"]), (&json!("ada"), &json!(true)));

    let path = format!("/api/jobs/{job}/cancel");
    for (headers, status) in [
        (own.clone(), 401),
        (format!("{own}{eve}"), 403),
        (lovelace.clone(), 403),
        (format!("Origin: http://evil.example\r\n{lovelace}"), 403),
        (format!("Authorization: Bearer {reader}\r\n{lovelace}"), 403),
        (format!("{own}{lovelace}"), 200),
        (format!("Authorization: Bearer {ada}\r\n"), 200),
    ] {
        assert_eq!(post(&service, &path, &headers, "").await.status, status, "{headers}");
    }

    let sees = async |cookie: &str| {
        request(at, "GET /api/jobs", &format!("Host: {at}\r\n{cookie}"), "").await.status
    };
    assert_eq!((sees(&eve).await, sees(&lovelace).await), (200, 200));
    assert_eq!(post(&service, "/api/logout", &format!("{own}{eve}"), "").await.status, 200);
    tokens.revoke("ada").unwrap();
    assert_eq!((sees(&eve).await, sees(&lovelace).await), (401, 401), "logged out, and revoked");
    service.stop().await;
}

#[tokio::test]
async fn tokens_that_cannot_be_read_close_the_door() {
    let folder = folder();
    let (mut service, _) = guarded(folder.path()).await;
    std::fs::write(folder.path().join("state/tokens.json"), "{").unwrap();
    let refused = service.grpc.list(pb::ListRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused}");
    assert!(refused.message().contains("tokens.json"), "{refused}");
    assert_eq!(get(service.web, "/api/jobs").await.status, 500);
    service.stop().await;
}
