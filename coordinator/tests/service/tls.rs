//! Addresses that other machines reach: encrypted, with tokens, and with certificates of users where asked for.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use squad_coordinator::{Role, ServeError, Server, Tls, TokenFile, make_certificates};
use squad_proto::connect::{Bearer, Trust, endpoint};
use squad_proto::pb::{self, jobs_client::JobsClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{Code, Request, Status};

use crate::harness::{Service, config, folder, spec, within};
use crate::web::get;

/// Where the service's clients look for it.
fn url(at: SocketAddr) -> String {
    format!("https://localhost:{}", at.port())
}

/// A service on all addresses with certificates of the folder `tls`; whether users must have one too.
async fn exposed(root: &Path, asks_users: bool) -> Service {
    let certificates = root.join("tls");
    make_certificates(&certificates, &["localhost".into()], &["ada".into()]).unwrap();
    let at = |name: &str| certificates.join(name);
    let ca = at("ca.pem");
    let tls = Tls::read(&at("server.pem"), &at("server.key"), asks_users.then_some(ca.as_path())).unwrap();
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let server = Server::bind(config(root, 2), everywhere, Some(tls)).await.unwrap();
    let server = server.with_web(everywhere, Vec::new()).await.unwrap();
    let server = server.with_health("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let health = get(server.health_addr().unwrap(), "/api/jobs");
    let endpoint = endpoint(&url(server.local_addr()), &trust(root, None)).unwrap();
    let service = Service::of(server, endpoint).await;
    assert_eq!(within("the probe", health).await.status, 404, "probes see nothing but their own");
    service
}

fn trust(root: &Path, user: Option<&str>) -> Trust {
    let read = |name: String| std::fs::read_to_string(root.join("tls").join(name)).unwrap();
    let identity = user.map(|user| (read(format!("{user}.pem")), read(format!("{user}.key"))));
    Trust { certificates: Some(read("ca.pem".into())), identity }
}

/// Lists the jobs, with a token or without.
async fn list(url: &str, trust: &Trust, token: Option<&str>) -> Result<usize, Status> {
    let endpoint = endpoint(url, trust).unwrap();
    let channel = endpoint.connect().await.map_err(|error| Status::unavailable(format!("{error:?}")))?;
    let mut request = Request::new(pb::ListRequest::default());
    if let Some(token) = token {
        Bearer::new(token, &endpoint).unwrap().put(&mut request);
    }
    Ok(JobsClient::new(channel).list(request).await?.into_inner().jobs.len())
}

#[tokio::test]
async fn a_job_runs_behind_tls_and_strangers_stay_outside() {
    let folder = folder();
    let root = folder.path();
    let mut service = exposed(root, false).await;
    let (at, own) = (url(service.address), trust(root, None));
    let nobody = list(&at, &own, None).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated, "without a single token nobody is let in: {nobody}");
    let token = TokenFile::of(&root.join("state")).create("ada", Role::Submit).unwrap();

    let request = pb::SubmitRequest { spec_json: spec("succeed", 2, 10.0).to_string(), ..Default::default() };
    let bearer = Bearer::new(&token, &endpoint(&at, &own).unwrap()).unwrap();
    let put = |request: &mut Request<_>| bearer.put(request);
    let mut submission = Request::new(request);
    put(&mut submission);
    let job = service.grpc.submit(submission).await.unwrap().into_inner().job;
    let mut watch = Request::new(pb::WatchRequest { job, after_sequence: 0 });
    bearer.put(&mut watch);
    let mut events = service.grpc.watch(watch).await.unwrap().into_inner();
    let last = within("the job's end", async {
        let mut last = None;
        while let Some(event) = events.message().await.unwrap() {
            last = event.body;
        }
        last
    })
    .await;
    let Some(pb::event::Body::State(end)) = last else { panic!("{last:?}") };
    assert_eq!(end.state(), pb::JobState::Succeeded, "{}", end.reason);

    let other = tempfile::tempdir().unwrap();
    make_certificates(&other.path().join("tls"), &["localhost".into()], &[]).unwrap();
    let unknown = list(&at, &trust(other.path(), None), Some(&token)).await.unwrap_err();
    assert!(unknown.message().contains("UnknownIssuer"), "{unknown}");
    let named = format!("https://127.0.0.1:{}", service.address.port());
    let misnamed = list(&named, &own, Some(&token)).await.unwrap_err();
    assert!(misnamed.message().contains("NotValidForName"), "{misnamed}");
    let clear = list(&at.replace("https", "http"), &own, None).await.unwrap_err();
    assert_ne!(clear.code(), Code::Unauthenticated, "what is not encrypted is not even answered: {clear}");
    service.stop().await;
}

#[tokio::test]
async fn users_show_a_certificate_where_it_is_asked_for() {
    let folder = folder();
    let root = folder.path();
    let service = exposed(root, true).await;
    let token = TokenFile::of(&root.join("state")).create("ada", Role::Read).unwrap();
    let at = url(service.address);
    let without = list(&at, &trust(root, None), Some(&token)).await.unwrap_err();
    assert_eq!(without.code(), Code::Unauthenticated);
    assert!(without.message().contains("certificate"), "{without}");
    assert_eq!(list(&at, &trust(root, Some("ada")), Some(&token)).await.unwrap(), 0);
    let only = list(&at, &trust(root, Some("ada")), None).await.unwrap_err();
    assert_eq!(only.code(), Code::Unauthenticated, "a certificate alone says nothing of a role");

    let other = tempfile::tempdir().unwrap();
    make_certificates(&other.path().join("tls"), &["localhost".into()], &["ada".into()]).unwrap();
    let forged = Trust { identity: trust(other.path(), Some("ada")).identity, ..trust(root, None) };
    assert!(list(&at, &forged, Some(&token)).await.is_err(), "a certificate of another authority");
    service.stop().await;
}

/// A browser's connection to the page.
async fn browse(root: &Path, at: SocketAddr) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root.join("tls/ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", at.port())).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn the_page_of_other_machines_is_encrypted_and_closed() {
    let folder = folder();
    let root = folder.path();
    let service = exposed(root, false).await;
    let token = TokenFile::of(&root.join("state")).create("ada", Role::Read).unwrap();
    let host = format!("localhost:{}", service.web.port());
    let ask = async |line: &str, headers: &str, body: &str| {
        let mut stream = browse(root, service.web).await;
        let text = format!(
            "{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Some end without TLS's own farewell.
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8(answer).unwrap()
    };
    assert!(ask("GET /api/jobs", "", "").await.starts_with("HTTP/1.1 401"));
    assert!(
        ask("GET /metrics", &format!("Authorization: Bearer {token}\r\n"), "")
            .await
            .contains("squadron_slots")
    );
    let login = serde_json::json!({"token": token}).to_string();
    let answer = ask("POST /api/login", &format!("Origin: https://{host}\r\n"), &login).await;
    assert!(answer.contains("__Host-squadron=") && answer.contains("; Secure"), "{answer}");
    let clear = ask("POST /api/login", &format!("Origin: http://{host}\r\n"), &login).await;
    assert!(clear.starts_with("HTTP/1.1 403"), "the same name over http is another origin: {clear}");
    service.stop().await;
}

#[tokio::test]
async fn nothing_is_served_in_the_clear_to_other_machines() {
    let folder = folder();
    let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let refused = Server::bind(config(folder.path(), 1), everywhere, None).await.err().unwrap();
    assert!(matches!(refused, ServeError::NotLoopback(_)), "{refused}");
    assert!(refused.to_string().contains("--tls-cert"), "{refused}");
    let local = Server::bind(config(folder.path(), 1), "127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let refused = local.with_web(everywhere, Vec::new()).await.err().unwrap();
    assert!(matches!(refused, ServeError::NotLoopback(_)), "{refused}");
}
