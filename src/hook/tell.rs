//! Telling one receiver: what drives a [`Teller`](crate::hook::teller).

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

use crate::hook::Parcel;
use crate::hook::ask::StartError;
use crate::hook::settings::{Settings, Tell};
use crate::stdx::clock::WallAnchor;

/// What is still to be told to one receiver. Control implements it over the ledger.
///
/// The contract: a page has the parcels after `after` in the order of their ids, the lowest first, and **no parcel shows
/// before one with a lower id has**, or the latter would never be told in this life of the server. Parcels that were
/// said to be done may show again for a while.
pub trait Spool: Send + Sync + 'static {
    /// At most `limit` parcels with ids above `after`.
    fn page(&self, after: i64, limit: usize) -> impl Future<Output = Vec<Parcel>> + Send;

    /// These have been heard, or never will be; they may go. Does not wait.
    fn done(&self, ids: Vec<i64>);
}

/// One receiver: its address, its secrets, and what is known of it.
#[derive(Clone)]
pub struct Endpoint(Arc<str>);

impl Endpoint {
    /// Makes ready to tell. `node` is how this server names itself.
    ///
    /// # Errors
    /// When TLS cannot be set up, or the URL is none.
    pub fn new(_settings: &Settings, tell: &Tell, _wall: WallAnchor) -> Result<Self, StartError> {
        Ok(Self(tell.name.as_str().into()))
    }
}

/// Tells a receiver what its spool has, for ever: spawn it on control's runtime and drop it at the end. `wake` changes
/// when the spool may have more.
pub async fn tell<S: Spool>(_endpoint: Endpoint, _spool: S, mut wake: watch::Receiver<u64>) {
    while wake.changed().await.is_ok() {}
}
