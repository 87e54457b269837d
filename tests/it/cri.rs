//! A client of Kubernetes' container runtime interface: gRPC over containerd's socket.
//!
//! Requests and replies are JSON. tests/support/cri.proto says what becomes of it on the wire.

use bytes::{Buf, Bytes};
use h2::RecvStream;
use http::{HeaderMap, Request};
use protobuf::MessageDyn;
use protobuf::reflect::FileDescriptor;
use protobuf_json_mapping::{PrintOptions, merge_from_str, print_to_string_with_options};
use serde_json::Value;
use std::error::Error;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

/// containerd's refusal of a call.
#[derive(Debug)]
pub struct Refused {
    /// gRPC's status code.
    pub code: i32,
    /// Why.
    pub text: String,
}

static INTERFACE: LazyLock<FileDescriptor> = LazyLock::new(|| {
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
    let mut parsed = protobuf_parse::Parser::new()
        .pure()
        .include(&support)
        .input(support.join("cri.proto"))
        .file_descriptor_set()
        .unwrap();
    FileDescriptor::new_dynamic(parsed.file.remove(0), &[]).unwrap()
});

/// Calls a method behind that socket.
pub fn call(
    socket: &Path,
    method: &str,
    request: &Value,
    limit: Duration,
) -> Result<Value, Refused> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sent = to_wire(method, request);
    let reply = runtime.block_on(async {
        let unary = unary(socket, method, sent);
        let ended = tokio::time::timeout(limit, unary).await;
        ended.unwrap_or_else(|_| panic!("{method} took longer than {limit:?}: {request}"))
    });
    match reply {
        Ok(bytes) => Ok(from_wire(method, &bytes)),
        Err(error) => match error.downcast() {
            Ok(refused) => Err(*refused),
            Err(error) => panic!("{method}: {error}"),
        },
    }
}

fn message(method: &str, part: &str) -> protobuf::reflect::MessageDescriptor {
    let name = format!("{method}{part}");
    let found = INTERFACE.message_by_package_relative_name(&name);
    found.unwrap_or_else(|| panic!("tests/support/cri.proto has no {name}"))
}

fn to_wire(method: &str, request: &Value) -> Vec<u8> {
    let mut sent = message(method, "Request").new_instance();
    merge_from_str(&mut *sent, &request.to_string())
        .unwrap_or_else(|error| panic!("{method}: {error}: {request}"));
    sent.write_to_bytes_dyn().unwrap()
}

fn from_wire(method: &str, bytes: &[u8]) -> Value {
    let reply = message(method, "Response").parse_from_bytes(bytes).unwrap();
    let options = PrintOptions {
        proto_field_name: true,
        always_output_default_values: true,
        ..PrintOptions::default()
    };
    let text = print_to_string_with_options(&*reply as &dyn MessageDyn, &options).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// One call as gRPC has it: a message behind a flag and its length, a reply of the same form, and
/// the status among the trailers.
async fn unary(
    socket: &Path,
    method: &str,
    message: Vec<u8>,
) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
    let stream = tokio::net::UnixStream::connect(socket).await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let service = if method.contains("Image") { "ImageService" } else { "RuntimeService" };
    let request = Request::post(format!("http://localhost/runtime.v1.{service}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut send) = client.ready().await?.send_request(request, false)?;
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len())?.to_be_bytes());
    frame.extend(message);
    send.send_data(frame.into(), true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut received = receive(&mut body).await?;
    // A refusal may have no body; its status then stands in front.
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    connection.abort();
    status(&trailers)?;
    received.advance(received.len().min(5));
    Ok(received)
}

async fn receive(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut received = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        received.extend_from_slice(&data);
    }
    Ok(received.into())
}

fn status(trailers: &HeaderMap) -> Result<(), Box<dyn Error + Send + Sync>> {
    let get = |name: &str| trailers.get(name).map(http::HeaderValue::as_bytes);
    let code = std::str::from_utf8(get("grpc-status").ok_or("no grpc-status")?)?.parse()?;
    if code == 0 {
        return Ok(());
    }
    let text = plain(get("grpc-message").unwrap_or_default());
    Err(Box::new(Refused { code, text }))
}

/// Text without gRPC's percent-encoding.
fn plain(encoded: &[u8]) -> String {
    let mut text = Vec::new();
    let mut rest = encoded;
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(value) if byte == b'%' => {
                text.push(value);
                rest = &after[2..];
            }
            _ => {
                text.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "refused with code {}: {}", self.code, self.text)
    }
}

impl Error for Refused {}
