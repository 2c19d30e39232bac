//! Requests to test with.

use std::net::{IpAddr, SocketAddr};

use sluicegate::admission::Request;
use sluicegate::names::{Kind, Name, Protocol, StreamKey};

pub fn stream_key(stream: &str) -> StreamKey {
    let app = |text| Name::app(text).unwrap();
    StreamKey::new(&app("default"), &app("live"), &Name::stream(stream).unwrap())
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn request(kind: Kind, from: &str, stream: &str) -> Request {
    let remote = SocketAddr::new(address(from), 40_000);
    let local = SocketAddr::from(([198, 51, 100, 1], 1935));
    Request { kind, protocol: Protocol::Rtmp, key: stream_key(stream), remote, local, query: None }
}
