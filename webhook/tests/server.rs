//! The HTTPS server on loopback: protocols, bounds, certificates swapped under way, orderly end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers may panic as the test itself"
)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request as HttpRequest, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use openelb_webhook::{
    certs::{
        bundle::Bundle,
        config::CertConfig,
        issue,
        resolver::{Served, ServingCert},
        x509::provider,
    },
    metrics::Metrics,
    review::{Answer, Phase, Request},
    server::{
        Limits,
        connection::Shared,
        listener,
        routes::{Reviewer, router},
        tls,
    },
};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

const PATH: &str = "/validate-network-kubesphere-io-v1alpha2-eip";
const DEADLINE: Duration = Duration::from_secs(20);

/// Says yes and repeats the name.
struct Yes;

impl Reviewer for Yes {
    fn is_ready(&self) -> bool {
        true
    }

    fn review(&self, _: Phase, request: &Request) -> (Answer, &'static str) {
        (Answer::warn(request.name.clone()), "other")
    }
}

struct Server {
    address: SocketAddr,
    serving: Arc<ServingCert>,
    bundle: Bundle,
    closing: CancellationToken,
    task: JoinHandle<()>,
    metrics: Metrics,
}

fn bundle() -> Bundle {
    let config = CertConfig::new("openelb-system", &["127.0.0.1".to_owned()]);
    issue::everything(&[], &config, Timestamp::now()).unwrap()
}

fn put(serving: &ServingCert, bundle: &Bundle) {
    let key = Arc::new(bundle.certified_key().unwrap());
    let leaf = &bundle.chain[0];
    serving.set(Served {
        key,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    });
}

async fn start(limits: Limits) -> Server {
    start_with(limits, Arc::new(Yes)).await
}

async fn start_with(limits: Limits, reviewer: Arc<dyn Reviewer>) -> Server {
    let serving = Arc::new(ServingCert::default());
    let bundle = bundle();
    put(&serving, &bundle);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let closing = CancellationToken::new();
    let metrics = Metrics::new();
    let config = tls::config(Arc::clone(&serving) as _).unwrap();
    let shared = Shared {
        router: router(reviewer, limits, metrics.clone()),
        acceptor: TlsAcceptor::from(Arc::new(config)),
        limits,
        metrics: metrics.clone(),
        closing: closing.clone(),
    };
    let task = tokio::spawn(listener::run(listener, shared));
    Server {
        address,
        serving,
        bundle,
        closing,
        task,
        metrics,
    }
}

fn client(
    bundle: &Bundle,
    protocols: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for cert in &bundle.trust {
        roots.add(cert.der.clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    Arc::new(config)
}

async fn connect(
    server: &Server,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from("openelb-controller.openelb-system.svc").unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

async fn tls(server: &Server, protocol: &str) -> TlsStream<TcpStream> {
    connect(
        server,
        client(&server.bundle, &[protocol], rustls::ALL_VERSIONS),
    )
    .await
    .unwrap()
}

fn review(name: &str) -> HttpRequest<Full<Bytes>> {
    let body = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": { "uid": "u", "name": name, "operation": "CREATE" },
    });
    HttpRequest::post(format!("https://openelb-controller{PATH}"))
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .unwrap()
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn http2(stream: TlsStream<TcpStream>) -> (Sender, JoinHandle<()>) {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let task = tokio::spawn(async move {
        let _ = connection.await;
    });
    (sender, task)
}

async fn ask(sender: &mut Sender, name: &str) -> Value {
    let answer = sender.send_request(review(name)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// Waits until the other side has closed.
async fn closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest))
        .await
        .expect("the server left the connection open");
}

#[tokio::test]
async fn reviews_are_answered_over_http2_and_http1_with_tls_12_and_13() {
    let server = start(Limits::default()).await;
    for version in rustls::ALL_VERSIONS {
        let config = client(&server.bundle, &["h2"], &[version]);
        let (mut sender, _) = http2(connect(&server, config).await.unwrap()).await;
        assert_eq!(
            ask(&mut sender, "pool").await["response"]["warnings"][0],
            "pool"
        );
    }
    let stream = tls(&server, "http/1.1").await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    for _ in 0..2 {
        let answer = sender.send_request(review("one")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body().collect().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_review_is_refused_without_harm() {
    let server = start(Limits {
        body: 1 << 10,
        ..Limits::default()
    })
    .await;
    let (mut sender, _) = http2(tls(&server, "h2").await).await;
    for (body, status) in [
        (String::new(), StatusCode::BAD_REQUEST),
        ("{}".to_owned(), StatusCode::BAD_REQUEST),
        ("x".repeat(2 << 10), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let mut request = review("x");
        *request.body_mut() = Full::from(body);
        assert_eq!(sender.send_request(request).await.unwrap().status(), status);
    }
    let mut elsewhere = review("x");
    *elsewhere.uri_mut() = "https://openelb-controller/elsewhere".parse().unwrap();
    let answer = sender.send_request(elsewhere).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    ask(&mut sender, "still here").await;
}

/// Knows nothing yet.
struct NotYet;

impl Reviewer for NotYet {
    fn is_ready(&self) -> bool {
        false
    }

    fn review(&self, _: Phase, _: &Request) -> (Answer, &'static str) {
        (Answer::allow(), "other")
    }
}

#[tokio::test]
async fn before_the_cluster_is_known_no_review_is_answered() {
    let server = start_with(Limits::default(), Arc::new(NotYet)).await;
    let (mut sender, _) = http2(tls(&server, "h2").await).await;
    let answer = sender.send_request(review("x")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let refused = r#"refusals_total{reason="not_ready"} 1"#;
    assert!(server.metrics.encode().unwrap().contains(refused));
    let mut alive = review("x");
    *alive.method_mut() = http::Method::GET;
    *alive.uri_mut() = "https://openelb-controller/healthz".parse().unwrap();
    let answer = sender.send_request(alive).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_certificate_is_swapped_without_losing_a_connection() {
    let server = start(Limits::default()).await;
    let (mut open, _) = http2(tls(&server, "h2").await).await;
    ask(&mut open, "before").await;
    let renewed = bundle();
    put(&server.serving, &renewed);
    ask(&mut open, "after").await;
    let new = client(&renewed, &["h2"], rustls::ALL_VERSIONS);
    let (mut fresh, _) = http2(connect(&server, new).await.unwrap()).await;
    ask(&mut fresh, "new").await;
    let old = client(&server.bundle, &["h2"], rustls::ALL_VERSIONS);
    assert!(connect(&server, old).await.is_err());
}

#[tokio::test]
async fn garbage_and_silence_are_cut_off() {
    let short = Duration::from_millis(200);
    let server = start(Limits {
        handshake: short,
        head: short,
        idle: short,
        ..Limits::default()
    })
    .await;
    let mut garbage = TcpStream::connect(server.address).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    closed(&mut garbage).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    closed(&mut silent).await;
    for protocol in ["h2", "http/1.1"] {
        let mut mute = tls(&server, protocol).await;
        closed(&mut mute).await;
        let mut slow = tls(&server, protocol).await;
        slow.write_all(b"PRI * HT").await.unwrap();
        slow.flush().await.unwrap();
        closed(&mut slow).await;
    }
    let (mut idle, connection) = http2(tls(&server, "h2").await).await;
    ask(&mut idle, "then silence").await;
    tokio::time::timeout(DEADLINE, connection)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_body_that_dribbles_in_is_given_up() {
    let limits = Limits {
        request: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = start(limits).await;
    let mut stream = tls(&server, "http/1.1").await;
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_head_that_dribbles_in_is_given_up() {
    let short = Duration::from_millis(200);
    let server = start(Limits {
        head: short,
        idle: short,
        ..Limits::default()
    })
    .await;
    // On a new connection, and on one that has had its first answer.
    for first in [false, true] {
        let mut stream = tls(&server, "http/1.1").await;
        if first {
            let request = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 400");
        }
        let (mut reader, mut writer) = tokio::io::split(stream);
        let dribble = async {
            let head = format!("POST {PATH} HTTP/1.1\r\nhost: ");
            let mut bytes = head.bytes().chain(std::iter::repeat(b'x'));
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            loop {
                pace.tick().await;
                let byte = bytes.next().unwrap();
                if writer.write_all(&[byte]).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = closed(&mut reader) => {}
            () = dribble => {}
        }
    }
}

#[tokio::test]
async fn requests_beyond_the_bound_are_told_to_try_again() {
    let server = start(Limits {
        requests: 1,
        request: Duration::from_millis(500),
        ..Limits::default()
    })
    .await;
    // Bodies that do not come: one at a time takes the only place until its time is up, and the
    // others wait for it no longer than a request may take.
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut stream = tls(&server, "http/1.1").await;
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        waiting.push(stream);
    }
    let mut answers = Vec::new();
    for stream in &mut waiting {
        let mut answer = [0; 12];
        tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answers.push(String::from_utf8(answer.to_vec()).unwrap());
    }
    let count = |status: &str| answers.iter().filter(|one| one.ends_with(status)).count();
    assert!(count("503") > 0 && count("408") > 0, "{answers:?}");
    assert_eq!(count("503") + count("408"), answers.len(), "{answers:?}");
    let busy = r#"refusals_total{reason="busy"}"#;
    assert!(server.metrics.encode().unwrap().contains(busy));
    drop(waiting);
    let (mut sender, _) = http2(tls(&server, "h2").await).await;
    ask(&mut sender, "room again").await;
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_and_idle_ones_make_room() {
    let limits = Limits {
        connections: 4,
        idle_when_scarce: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = start(limits).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let (mut sender, _) = http2(tls(&server, "h2").await).await;
        ask(&mut sender, "held").await;
        open.push(sender);
    }
    // The fifth gets its turn when an idle one has been closed.
    let (mut fifth, _) =
        tokio::time::timeout(DEADLINE, async { http2(tls(&server, "h2").await).await })
            .await
            .unwrap();
    ask(&mut fifth, "late").await;
    assert!(
        server
            .metrics
            .encode()
            .unwrap()
            .contains(r#"refusals_total{reason="idle"}"#)
    );
}

#[tokio::test]
async fn shutting_down_answers_what_is_under_way_and_ends() {
    let server = start(Limits::default()).await;
    let mut stream = tls(&server, "http/1.1").await;
    let body = r#"{"request":{"uid":"u"}}"#;
    let (first, rest) = body.split_at(5);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{first}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut other, idle) = http2(tls(&server, "h2").await).await;
    ask(&mut other, "idle by now").await;
    server.closing.cancel();
    // An idle connection ends at once, so closing has begun; then the rest of the request.
    tokio::time::timeout(DEADLINE, idle).await.unwrap().unwrap();
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    tokio::time::timeout(DEADLINE, server.task)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
