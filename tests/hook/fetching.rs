//! Fetching a key set over a real socket.

use std::io::Write as _;

use sluicegate::admission::Failure;
use sluicegate::hook::Fetcher;
use sluicegate::hook::fetch::DOCUMENT_BYTES_MAX;

use crate::support::{BackEnd, asking, response};

fn fetcher() -> Fetcher {
    Fetcher::new(&asking("http://127.0.0.1:9/")).unwrap()
}

#[tokio::test]
async fn documents_are_fetched_over_one_connection_and_with_no_headers_but_those_that_are_needed() {
    let back_end = BackEnd::saying(response("200 OK", "{\"keys\":[]}"));
    let address = back_end.address;
    let fetcher = fetcher();
    for _ in 0..2 {
        let text = fetcher.get(&format!("http://{address}/keys?a=1")).await;
        assert_eq!(text.as_deref(), Ok("{\"keys\":[]}"));
        let requests = back_end.requests();
        let request = requests.last().unwrap();
        assert_eq!(request.head.lines().next(), Some("GET /keys?a=1 HTTP/1.1"));
        assert_eq!(request.header("host"), Some(address.to_string().as_str()));
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.header("accept-encoding"), None);
        assert!(request.body.is_empty() && request.header("content-length").is_none(), "{}", request.head);
    }
    assert_eq!(*back_end.connections.lock().unwrap(), 1, "the connection is used again");
}

#[tokio::test]
async fn what_is_no_document_is_a_failure() {
    let fetcher = fetcher();
    let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(9).into_bytes();
    for (bytes, wrong) in [
        (response("204 No Content", ""), Failure::Status(204)),
        (response("302 Found", ""), Failure::Status(302)),
        (response("200 OK", &"x".repeat(DOCUMENT_BYTES_MAX + 1)), Failure::Malformed("body")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe".to_vec(), Failure::Malformed("text")),
        ([interim, response("200 OK", "{}")].concat(), Failure::Malformed("interim")),
    ] {
        let back_end = BackEnd::saying(bytes);
        assert_eq!(fetcher.get(&back_end.url()).await, Err(wrong));
    }
    let largest = "x".repeat(DOCUMENT_BYTES_MAX);
    let back_end = BackEnd::start(move |_, stream| stream.write_all(&response("200 OK", &largest)).is_ok());
    assert_eq!(fetcher.get(&back_end.url()).await.map(|text| text.len()), Ok(DOCUMENT_BYTES_MAX));
    assert_eq!(fetcher.get("no URL").await, Err(Failure::Connect));
}
