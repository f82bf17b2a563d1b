//! A TCP connection with bounded buffers, polled by the task that owns it.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Most octets read at once; with a partial message this bounds the inbox.
const READ_AT_ONCE: usize = 64 * 1024;
/// The outbox takes more routes only while it holds fewer octets than this.
const LOW_WATER: usize = 128 * 1024;
/// How long a peer gets to take the last octets of a connection.
const LINGER: Duration = Duration::from_secs(2);

/// What happened on a link.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// Octets are in the inbox.
    Received,
    /// Everything in the outbox is with the kernel.
    Flushed,
    /// The connection is gone.
    Lost(String),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    /// What arrived and is not yet taken.
    pub inbox: BytesMut,
    /// What is to be sent.
    pub outbox: BytesMut,
    /// Since when nothing of the outbox was taken.
    stalled_since: Option<Instant>,
}

impl Link {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            stalled_since: None,
        }
    }

    /// Whether more routes may go into the outbox.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.len() < LOW_WATER
    }

    /// Since when the peer takes nothing (RFC 9687).
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since
    }

    /// Hands the outbox to the kernel as far as it takes it now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.try_write(&self.outbox) {
                Ok(taken) => {
                    self.outbox.advance(taken);
                    self.stalled_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stalled_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.stalled_since = None;
        Ok(())
    }

    /// Waits for something to happen.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<LinkEvent> {
        while !self.outbox.is_empty() {
            match self.stream.poll_write_ready(context) {
                Poll::Pending => break,
                Poll::Ready(ready) => match ready.and_then(|()| self.flush()) {
                    Err(error) => return Poll::Ready(LinkEvent::Lost(error.to_string())),
                    Ok(()) if self.outbox.is_empty() => return Poll::Ready(LinkEvent::Flushed),
                    Ok(()) => {}
                },
            }
        }
        loop {
            match self.stream.poll_read_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(LinkEvent::Lost(error.to_string())),
                Poll::Ready(Ok(())) => {}
            }
            self.inbox.reserve(READ_AT_ONCE);
            let mut room = bytes::BufMut::limit(&mut self.inbox, READ_AT_ONCE);
            match self.stream.try_read_buf(&mut room) {
                Ok(0) => {
                    return Poll::Ready(LinkEvent::Lost("closed by the peer".to_owned()));
                }
                Ok(_) => return Poll::Ready(LinkEvent::Received),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(LinkEvent::Lost(error.to_string())),
            }
        }
    }

    /// Sends what is left and closes. What still arrives is read and dropped:
    /// octets left unread would make the kernel reset the connection, and the
    /// peer might lose our last message.
    pub(crate) async fn linger(mut self) {
        let farewell = async {
            self.stream.write_all(&self.outbox).await?;
            self.stream.shutdown().await?;
            let mut sink = [0; 4096];
            loop {
                self.stream.ready(Interest::READABLE).await?;
                match self.stream.try_read(&mut sink) {
                    Ok(0) => return Ok::<(), io::Error>(()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        };
        // Whatever goes wrong, the connection ends here.
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
}
