//! One client connection: the engine until media flows, the scanner from then on.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use sluicegate::proto::rtmp::amf0::{self, Value};
use sluicegate::proto::rtmp::chunk;
use sluicegate::proto::rtmp::client::{Client, ClientEvent, Intent};
use sluicegate::proto::rtmp::message::type_id;

use crate::net::{ReadBuffer, Route, send};
use crate::scan::{Item, Scanner, be32};

/// Output that waits for the socket beyond this ends the connection: the server has not read for very long.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// Whom to talk to about what.
#[derive(Clone, Debug)]
pub struct Target {
    /// Addresses.
    pub route: Route,
    /// Application.
    pub app: String,
    /// Stream name; `%d` stands for the number of the stream.
    pub stream: String,
}

impl Target {
    /// The name of the `index`-th stream.
    pub fn stream_name(&self, index: usize) -> String {
        self.stream.replacen("%d", &index.to_string(), 1)
    }
}

/// A connection's way so far. Each stage is set once.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "instants end in `_at` everywhere in the house")]
pub struct Stages {
    /// `connect(2)` was called.
    pub opened_at: Instant,
    /// The socket was writable for the first time.
    pub connected_at: Option<Instant>,
    /// S2 was read whole.
    pub handshaken_at: Option<Instant>,
    /// The answer to `connect`.
    pub accepted_at: Option<Instant>,
    /// The answer to `createStream`.
    pub created_at: Option<Instant>,
    /// `NetStream.Play.Start` or `NetStream.Publish.Start`.
    pub started_at: Option<Instant>,
    /// The first audio or video message that is not a sequence header.
    pub media_at: Option<Instant>,
}

/// What became of a connection during one turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It goes on.
    Open,
    /// The server closed it.
    Closed,
    /// It ended for the reason given.
    Failed(String),
}

/// What a player tells of its media.
pub struct Media<'a> {
    /// 8 or 9.
    pub type_id: u8,
    /// First bytes of the message.
    pub head: &'a [u8],
    /// Its length.
    pub len: usize,
}

/// One client connection.
pub struct Peer {
    stream: TcpStream,
    fd: RawFd,
    engine: Option<Box<Client>>,
    scanner: Option<Box<Scanner>>,
    /// Bytes that the socket has not taken yet, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    keep_engine: bool,
    /// The server's acknowledgement window and what was last acknowledged.
    window: u64,
    acknowledged: u64,
    /// TCP payload received, handshake included.
    pub rx_bytes: u64,
    /// TCP payload sent, handshake included.
    pub tx_bytes: u64,
    /// Media messages received, sequence headers included; while the scanner follows them.
    pub media_count: u64,
    /// How far it came.
    pub stages: Stages,
    /// The server said that the stream ended.
    pub ended: bool,
}

impl Peer {
    /// Begins a connection that wants to publish or play the `index`-th stream.
    pub fn open(registry: &Registry, token: Token, target: &Target, intent: Intent, index: usize) -> io::Result<Self> {
        let opened_at = Instant::now();
        let mut stream = target.route.connect(token.0)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let fd = stream.as_raw_fd();
        let publishes = intent == Intent::Publish;
        let tc_url = format!("rtmp://{}/{}", target.route.to, target.app);
        let mut engine = Client::new(&tc_url, &target.app, &target.stream_name(index), intent);
        // The scanner sees media; the engine need not hand it out as well.
        engine.set_media_delivery(false);
        Ok(Self {
            stream,
            fd,
            engine: Some(Box::new(engine)),
            scanner: (!publishes).then(|| Box::new(Scanner::new())),
            output: Vec::new(),
            sent: 0,
            keep_engine: publishes,
            window: 0,
            acknowledged: 0,
            rx_bytes: 0,
            tx_bytes: 0,
            media_count: 0,
            stages: Stages {
                opened_at,
                connected_at: None,
                handshaken_at: None,
                accepted_at: None,
                created_at: None,
                started_at: None,
                media_at: None,
            },
            ended: false,
        })
    }

    /// The port we connect from, once connected.
    pub fn local_address(&self) -> Option<std::net::SocketAddr> {
        self.stream.local_addr().ok()
    }

    /// The engine of a publisher.
    pub fn engine(&mut self) -> Option<&mut Client> {
        self.engine.as_deref_mut()
    }

    /// Whether the server agreed to the publish or play.
    pub fn is_started(&self) -> bool {
        self.stages.started_at.is_some()
    }

    /// From now on received bytes are counted and not looked at.
    pub fn count_only(&mut self) {
        self.engine = None;
        self.scanner = None;
    }

    /// Bytes that the socket has not taken yet.
    pub fn backlog_bytes(&mut self) -> usize {
        let pending = self.engine.as_mut().map_or(0, |engine| engine.output().len());
        self.output.len() - self.sent + pending
    }

    /// Gives up the socket.
    pub fn close(mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.stream);
    }

    /// Acts on readiness. `on` is told of every media message.
    pub fn handle_event(
        &mut self,
        event: &mio::event::Event,
        buffer: &mut ReadBuffer,
        on: impl FnMut(&Media<'_>),
    ) -> Turn {
        if event.is_writable() && self.stages.connected_at.is_none() {
            if let Ok(Some(error)) = self.stream.take_error() {
                return Turn::Failed(format!("connect: {error}"));
            }
            self.stages.connected_at = Some(Instant::now());
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            // A read that does not fill the buffer has emptied the socket (epoll(7), question 9), unless the end of
            // the stream lies behind it.
            let until_closed = event.is_read_closed() || event.is_error();
            match self.read(buffer, until_closed, on) {
                Turn::Open => {}
                other => return other,
            }
        }
        if self.stages.connected_at.is_some() { self.flush() } else { Turn::Open }
    }

    fn read(&mut self, buffer: &mut ReadBuffer, until_closed: bool, mut on: impl FnMut(&Media<'_>)) -> Turn {
        loop {
            let len = if self.scanner.is_none() && self.engine.is_none() {
                match buffer.discard(self.fd) {
                    Ok(len) => len,
                    Err(error) => return read_error(&error),
                }
            } else {
                match buffer.receive(self.fd) {
                    Ok(bytes) => {
                        let len = bytes.len();
                        if let Err(why) = self.take(bytes, &mut on) {
                            self.rx_bytes += len as u64;
                            return Turn::Failed(why);
                        }
                        len
                    }
                    Err(error) => return read_error(&error),
                }
            };
            if len == 0 {
                return Turn::Closed;
            }
            self.rx_bytes += len as u64;
            self.acknowledge();
            if len < crate::net::READ_BYTES && !until_closed {
                return Turn::Open;
            }
        }
    }

    fn take(&mut self, bytes: &[u8], on: &mut impl FnMut(&Media<'_>)) -> Result<(), String> {
        self.scan(bytes, on)?;
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let now = Instant::now();
        engine.handle_bytes(now, bytes).map_err(|error| error.to_string())?;
        while let Some(event) = engine.poll_event() {
            match event {
                ClientEvent::Started => self.stages.started_at = self.stages.started_at.or(Some(now)),
                ClientEvent::Refused(code, text) => return Err(format!("refused: {code} {text}")),
                ClientEvent::Ended => self.ended = true,
                ClientEvent::Message(_) | ClientEvent::Status(_) => {}
            }
        }
        if self.stages.started_at.is_some() && !self.keep_engine {
            // The scanner has followed from the first byte, so it can go on alone.
            let mut last = std::mem::take(engine.output());
            self.output.append(&mut last);
            self.engine = None;
        }
        Ok(())
    }

    fn scan(&mut self, bytes: &[u8], on: &mut impl FnMut(&Media<'_>)) -> Result<(), String> {
        let Some(scanner) = &mut self.scanner else { return Ok(()) };
        let alone = self.engine.is_none();
        let (stages, output, window, ended) = (&mut self.stages, &mut self.output, &mut self.window, &mut self.ended);
        let media_count = &mut self.media_count;
        scanner
            .scan(bytes, |item| match item {
                Item::Media { type_id, head, len } => {
                    *media_count += 1;
                    if stages.media_at.is_none() && !crate::source::is_sequence_header(type_id, head) {
                        stages.media_at = Some(Instant::now());
                    }
                    on(&Media { type_id, head, len });
                }
                Item::HandshakeDone => stages.handshaken_at = Some(Instant::now()),
                Item::Other { type_id: type_id::WINDOW_ACK_SIZE, payload } => {
                    *window = be32(payload).unwrap_or(0).into();
                }
                Item::Other { type_id: type_id::USER_CONTROL, payload } if alone => {
                    answer_ping(payload, output);
                }
                Item::Other { type_id: type_id::COMMAND_AMF0, payload } => on_command(payload, stages, ended, alone),
                Item::Other { .. } => {}
            })
            .map_err(|error| error.to_string())
    }

    /// Acknowledges every half window (RTMP 1.0 §5.4.3), once the engine no longer does.
    fn acknowledge(&mut self) {
        if self.engine.is_some() {
            self.acknowledged = self.rx_bytes;
        } else if self.window > 0 && self.rx_bytes - self.acknowledged >= (self.window / 2).max(1) {
            self.acknowledged = self.rx_bytes;
            let body = (self.rx_bytes as u32).to_be_bytes();
            chunk::write_message(&mut self.output, 128, 2, type_id::ACKNOWLEDGEMENT, 0, 0, &body);
        }
    }

    /// Sends what waits, as far as the socket takes it.
    pub fn flush(&mut self) -> Turn {
        if let Some(engine) = &mut self.engine {
            let fresh = engine.output();
            if self.output.is_empty() {
                std::mem::swap(&mut self.output, fresh);
            } else {
                self.output.append(fresh);
            }
        }
        while self.sent < self.output.len() {
            match send(self.fd, &self.output[self.sent..]) {
                Ok(len) => {
                    self.sent += len;
                    self.tx_bytes += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.output.len() - self.sent > OUTPUT_BYTES_MAX {
                        return Turn::Failed("the server does not read".into());
                    }
                    // Only what is left moves to the front, and only when that is little beside what went.
                    if self.sent > self.output.len() / 2 {
                        self.output.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Turn::Open;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Turn::Failed(format!("send: {error}")),
            }
        }
        self.output.clear();
        self.sent = 0;
        Turn::Open
    }
}

fn read_error(error: &io::Error) -> Turn {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Turn::Open,
        io::ErrorKind::ConnectionReset => Turn::Closed,
        _ => Turn::Failed(format!("receive: {error}")),
    }
}

/// `PingRequest` (RTMP 1.0 §7.1.7) is answered in kind, or nginx ends the session.
fn answer_ping(payload: &[u8], output: &mut Vec<u8>) {
    if let [0, 6, stamp @ ..] = payload {
        let mut body = vec![0, 7];
        body.extend_from_slice(&stamp[..stamp.len().min(4)]);
        chunk::write_message(output, 128, 2, type_id::USER_CONTROL, 0, 0, &body);
    }
}

fn on_command(payload: &[u8], stages: &mut Stages, ended: &mut bool, alone: bool) {
    let mut reader = amf0::Reader::new(payload);
    let mut value = || reader.next_value().ok().flatten();
    let name = value();
    match name.as_ref().and_then(Value::as_str) {
        // The first result answers `connect`, the first that is a number answers `createStream`.
        Some("_result") => {
            let _transaction = value();
            let _properties = value();
            match value() {
                Some(Value::Number(_)) if stages.created_at.is_none() => stages.created_at = Some(Instant::now()),
                _ if stages.accepted_at.is_none() => stages.accepted_at = Some(Instant::now()),
                _ => {}
            }
        }
        Some("onStatus") if alone => {
            let _transaction = value();
            let _properties = value();
            let code = value().and_then(|info| info.get("code").and_then(Value::as_str).map(str::to_owned));
            if matches!(code.as_deref(), Some("NetStream.Play.Stop" | "NetStream.Play.UnpublishNotify")) {
                *ended = true;
            }
        }
        _ => {}
    }
}
