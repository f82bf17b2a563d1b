//! A slow cable: what passes a host's port is held for a time, in both directions.
//!
//! Kernels without `netem` can do it too, because the cable is a thread. The host's port moves to a bridge of its own,
//! and the thread carries frames between that bridge and the segment's:
//!
//! ```text
//!   host ── to-HOST ── near-HOST (bridge) ── nearp-HOST ══ nearw-HOST ─┐
//!                                                                   thread
//!   all others ───────── br0 (bridge) ────── farp-HOST ══ farw-HOST ──┘
//! ```
//!
//! Frames keep their order. What the kernel would leave to a network card (checksums, segments) it does itself before
//! the thread sees a frame: `ethtool` says so to the ports of the two bridges. At most [`MOST_FRAMES`] are on the way in each
//! direction; what comes beyond is dropped, as a switch does.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

use super::Host;
use crate::namespace::Namespace;

/// How many frames may be on the way in one direction.
const MOST_FRAMES: usize = 20_000;
/// No frame is longer: segments are cut before they get here.
const LONGEST: usize = 65_536;

/// A slow cable. Dropped, it carries nothing any more.
#[derive(Debug)]
pub(super) struct Delay {
    /// Takes the time in microseconds, as eight bytes; closed, it ends the thread.
    setting: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// The bridge that a delayed host is on.
pub(super) fn bridge(host: &Host) -> String {
    format!("near-{}", host.name())
}

impl Delay {
    /// Puts a slow cable between a host's port and `br0`; the port stays plugged or unplugged as it is.
    pub(super) async fn start(switch: &Namespace, host: &Host, delay: Duration) -> Result<Self> {
        let name = host.name();
        // The ends that the thread holds must not speak for themselves.
        switch
            .sysctl(&["net.ipv6.conf.default.disable_ipv6=1"])
            .await?;
        switch
            .ip(&format!(
                "link add near-{name} type bridge\n\
                 link set near-{name} up\n\
                 link add nearp-{name} type veth peer name nearw-{name}\n\
                 link add farp-{name} type veth peer name farw-{name}\n\
                 link set nearw-{name} up\n\
                 link set farw-{name} up\n"
            ))
            .await?;
        for port in [format!("nearp-{name}"), format!("farp-{name}")] {
            switch
                .run(&[
                    "ethtool", "-K", &port, "tx", "off", "tso", "off", "gso", "off",
                ])
                .await?;
        }
        let (setting, set) = UnixStream::pair()?;
        set.set_nonblocking(true)?;
        let (near, far) = (format!("nearw-{name}"), format!("farw-{name}"));
        let namespace = switch.clone();
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("slow-cable".to_owned())
            .spawn(move || {
                let begin = || -> Result<_> {
                    namespace.enter_this_thread()?;
                    Ok((open(&near)?, open(&far)?))
                };
                match begin() {
                    Ok((near, far)) => {
                        let _ = ready.send(Ok(()));
                        if let Err(error) = carry(&near, &far, set, delay) {
                            eprintln!("a slow cable broke: {error:#}");
                        }
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            })
            .context("no thread for a slow cable")?;
        let cable = Self {
            setting: Some(setting),
            thread: Some(thread),
        };
        started
            .recv()
            .map_err(|_| anyhow!("the thread of a slow cable ended"))??;
        // Only now is there somebody who hears what comes.
        switch
            .ip(&format!(
                "link set nearp-{name} master near-{name} up\nlink set farp-{name} master br0 up\n"
            ))
            .await?;
        if switch.master(&host.port()).await?.is_some() {
            switch
                .ip(&format!("link set {} master near-{name}\n", host.port()))
                .await?;
        }
        Ok(cable)
    }

    /// Holds frames for another time from now on; those on the way keep theirs.
    pub(super) fn set(&self, delay: Duration) -> Result<()> {
        let microseconds = u64::try_from(delay.as_micros()).context("that is for ever")?;
        self.setting
            .as_ref()
            .context("the slow cable is gone")?
            .write_all(&microseconds.to_ne_bytes())
            .context("the slow cable broke")
    }

    /// Takes the cable away: the port is on `br0` again, if it was plugged at all.
    pub(super) async fn end(self, switch: &Namespace, host: &Host) -> Result<()> {
        let name = host.name();
        if switch.master(&host.port()).await?.is_some() {
            switch
                .ip(&format!("link set {} master br0\n", host.port()))
                .await?;
        }
        drop(self);
        switch
            .ip(&format!(
                "link del near-{name}\nlink del nearp-{name}\nlink del farp-{name}\n"
            ))
            .await
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.setting.take();
        if let Some(thread) = self.thread.take() {
            // It ends at once: it waits for nothing but this.
            let _ = thread.join();
        }
    }
}

/// A socket that gets and sends whole frames on one link of the calling thread's namespace.
fn open(link: &str) -> Result<OwnedFd> {
    let address: LinkAddr = nix::ifaddrs::getifaddrs()?
        .filter(|entry| entry.interface_name == link)
        .find_map(|entry| {
            entry
                .address
                .and_then(|address| address.as_link_addr().copied())
        })
        .with_context(|| format!("there is no link {link}"))?;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::EthAll,
    )
    .context("no packet socket")?;
    bind(socket.as_raw_fd(), &address).with_context(|| format!("cannot listen on {link}"))?;
    // Until it was bound it heard every link.
    let mut frame = vec![0; LONGEST];
    while recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()).is_ok() {}
    Ok(socket)
}

struct Frame {
    due: Instant,
    bytes: Vec<u8>,
}

/// Carries frames both ways until the setting is closed.
fn carry(near: &OwnedFd, far: &OwnedFd, mut setting: UnixStream, delay: Duration) -> Result<()> {
    let mut delay = delay;
    let mut outward = VecDeque::new();
    let mut inward = VecDeque::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        let next = [outward.front(), inward.front()]
            .into_iter()
            .flatten()
            .map(|frame: &Frame| frame.due)
            .min();
        let wait = next.map(|due| due.saturating_duration_since(Instant::now()).into());
        let mut sources = [near.as_fd(), far.as_fd(), setting.as_fd()]
            .map(|source| PollFd::new(source, PollFlags::POLLIN));
        match ppoll(&mut sources, wait, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for frames"),
        }
        listen(near, &mut buffer, &mut outward, delay)?;
        listen(far, &mut buffer, &mut inward, delay)?;
        let mut number = [0; 8];
        match setting.read(&mut number) {
            Ok(8) => delay = Duration::from_micros(u64::from_ne_bytes(number)),
            Ok(_) => return Ok(()),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("a slow cable lost its owner"),
        }
        let now = Instant::now();
        deliver(far, &mut outward, now);
        deliver(near, &mut inward, now);
    }
}

/// Takes what has come, to be delivered later.
fn listen(
    socket: &OwnedFd,
    buffer: &mut [u8],
    queue: &mut VecDeque<Frame>,
    delay: Duration,
) -> Result<()> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) if queue.len() < MOST_FRAMES => queue.push_back(Frame {
                due: Instant::now() + delay,
                bytes: buffer.get(..length).unwrap_or_default().to_vec(),
            }),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error).context("a link of a slow cable is gone"),
        }
    }
}

/// Sends what is due. A frame that the kernel does not take is lost, as on any cable.
fn deliver(socket: &OwnedFd, queue: &mut VecDeque<Frame>, now: Instant) {
    while let Some(frame) = queue.pop_front() {
        if frame.due > now {
            queue.push_front(frame);
            return;
        }
        while send(socket.as_raw_fd(), &frame.bytes, MsgFlags::empty()) == Err(Errno::EINTR) {}
    }
}
