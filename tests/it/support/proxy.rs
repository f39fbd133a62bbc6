//! A TCP proxy that injects network faults. It has a thread and a clock of its own, so that tests
//! with paused time can use it.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::process::free_port;

/// The treatment of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Drops all bytes and the end of the connection: neither side notices anything.
    Blackhole,
    /// Drops requests and passes replies.
    LoseRequests,
    /// Passes requests and drops replies.
    LoseReplies,
    /// Holds all bytes until the pause ends.
    Pause,
    /// Delays replies, not requests: the delay is added once per round trip.
    Delay(Duration),
    /// Passes this number of bytes per second and direction.
    Throttle(usize),
    /// Passes this number of bytes of replies, then closes both sides in order.
    CutReply(usize),
    /// Changes, drops or inserts one byte per this number of bytes of replies.
    Garble(usize),
    /// Resets connections; accepts new ones and resets them.
    Reset,
    /// As `Reset`, and stops listening.
    Refuse,
}

pub(crate) struct Proxy {
    port: u16,
    counts: Arc<Counts>,
    commands: Option<mpsc::UnboundedSender<Switch>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    requested: AtomicU64,
    replied: AtomicU64,
}

struct Switch {
    mode: Mode,
    existing_too: bool,
    done: std::sync::mpsc::Sender<()>,
}

impl Proxy {
    /// Listens on a free loopback port and forwards to the port `server` of loopback.
    pub(crate) fn to(server: u16) -> Self {
        let counts = Arc::new(Counts::default());
        let (commands, switches) = mpsc::unbounded_channel();
        let (port, listener) = (0..10)
            .find_map(|_| {
                let port = free_port();
                Some((port, std::net::TcpListener::bind(("127.0.0.1", port)).ok()?))
            })
            .expect("a free port");
        listener.set_nonblocking(true).unwrap();
        let network = Network { port, server, counts: Arc::clone(&counts), existing: Vec::new() };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                network.run(listener, switches).await;
            });
        });
        Self { port, counts, commands: Some(commands), thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Sets the mode of existing and new connections. It is in force when this returns.
    pub(crate) fn set(&self, mode: Mode) {
        self.switch(mode, true);
    }

    /// Sets the mode of new connections only.
    pub(crate) fn set_for_new(&self, mode: Mode) {
        self.switch(mode, false);
    }

    fn switch(&self, mode: Mode, existing_too: bool) {
        let (done, is_done) = std::sync::mpsc::channel();
        let commands = self.commands.as_ref().expect("only drop takes it");
        commands.send(Switch { mode, existing_too, done }).expect("the proxy runs");
        is_done.recv().expect("the proxy runs");
    }

    /// How many connections were accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// How many bytes of requests reached the server.
    pub(crate) fn requested(&self) -> u64 {
        self.counts.requested.load(Ordering::SeqCst)
    }

    /// How many bytes of replies reached clients.
    pub(crate) fn replied(&self) -> u64 {
        self.counts.replied.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Network {
    port: u16,
    server: u16,
    counts: Arc<Counts>,
    /// The mode of each open connection.
    existing: Vec<watch::Sender<Mode>>,
}

impl Network {
    async fn run(mut self, listener: TcpListener, mut switches: mpsc::UnboundedReceiver<Switch>) {
        let mut listener = Some(listener);
        let mut mode = Mode::Pass;
        loop {
            tokio::select! {
                biased;
                switch = switches.recv() => {
                    let Some(switch) = switch else { return };
                    mode = switch.mode;
                    if mode == Mode::Refuse {
                        listener = None;
                    } else if listener.is_none() {
                        listener = Some(TcpListener::bind(("127.0.0.1", self.port)).await.unwrap());
                    }
                    if switch.existing_too {
                        self.switch_existing(mode).await;
                    }
                    let _ = switch.done.send(());
                }
                Ok(client) = accepted(listener.as_ref()) => self.connect(client, mode),
            }
        }
    }

    async fn switch_existing(&mut self, mode: Mode) {
        self.existing.retain(|connection| connection.send(mode).is_ok());
        if matches!(mode, Mode::Reset | Mode::Refuse) {
            for connection in self.existing.drain(..) {
                connection.closed().await;
            }
        }
    }

    fn connect(&mut self, client: TcpStream, mode: Mode) {
        self.counts.connections.fetch_add(1, Ordering::SeqCst);
        let (sender, mode) = watch::channel(mode);
        self.existing.retain(|connection| !connection.is_closed());
        self.existing.push(sender);
        tokio::spawn(carry(client, self.server, mode, Arc::clone(&self.counts)));
    }
}

async fn accepted(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

/// Waits until `due`, without the timer if that has passed: the timer rounds up to milliseconds.
async fn until(due: Option<Instant>) {
    if let Some(due) = due
        && due > Instant::now()
    {
        sleep_until(due).await;
    }
}

/// Runs one connection until it ends.
async fn carry(
    mut client: TcpStream,
    server: u16,
    mut mode: watch::Receiver<Mode>,
    counts: Arc<Counts>,
) {
    let reset = |mode: &Mode| matches!(mode, Mode::Reset | Mode::Refuse);
    if reset(&mode.borrow()) {
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(mut upstream) = TcpStream::connect(("127.0.0.1", server)).await else {
        // There is no server, which a client behind a black hole cannot notice.
        let _ = mode.wait_for(|mode| !matches!(mode, Mode::Blackhole | Mode::Pause)).await;
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    let broken = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = upstream.split();
        let requests = Pump::new(Direction::Requests, mode.clone(), &counts.requested);
        let replies = Pump::new(Direction::Replies, mode.clone(), &counts.replied);
        tokio::select! {
            _ = mode.wait_for(reset) => true,
            end = async {
                let requests = requests.run(from_client, to_server);
                tokio::try_join!(requests, replies.run(from_server, to_client))
            } => matches!(end, Err(End::Broken)),
        }
    };
    if broken {
        let _ = (client.set_zero_linger(), upstream.set_zero_linger());
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Requests,
    Replies,
}

/// Garbles bytes, but never to an empty slice, which would mean the end of the connection.
fn garble(bytes: &mut Vec<u8>, rate: usize) {
    for _ in 0..bytes.len().div_ceil(rate) {
        let at = fastrand::usize(..bytes.len());
        match fastrand::u8(..8) {
            0 if bytes.len() > 1 => drop(bytes.remove(at)),
            1 => bytes.insert(at, fastrand::u8(..)),
            // The first byte of a reply in Redis' protocol, and digits of lengths.
            2 => bytes[at] = fastrand::choice(*b"$*:+-_#%~>,(=|!").unwrap(),
            3 => bytes[at] = fastrand::u8(b'0'..=b'9'),
            4 => drop(bytes.splice(at..at, *b"\r\n*4294967295\r\n")),
            5 => drop(bytes.splice(at..at, *b"99999999999")),
            _ => bytes[at] ^= 1 << fastrand::u8(..8),
        }
    }
}

/// The reason why a connection ends before both sides have closed it.
enum End {
    Cut,
    Broken,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// The effect of a mode on one direction.
enum Flow {
    Deliver { after: Duration, at_most: usize, then_wait: Duration },
    Lose,
    Hold,
    Cut,
}

struct Pump<'a> {
    direction: Direction,
    mode: watch::Receiver<Mode>,
    delivered: &'a AtomicU64,
    /// The bytes to deliver, with the time of their arrival; an empty vec is the end.
    waiting: VecDeque<(Instant, Vec<u8>)>,
    /// The rest of the bytes of `CutReply`.
    left: Option<usize>,
}

impl<'a> Pump<'a> {
    /// The number of chunks that a direction buffers before the sender must wait.
    const BUFFER: usize = 64;
    const CHUNK: usize = 16 * 1024;

    fn new(
        direction: Direction,
        mut mode: watch::Receiver<Mode>,
        delivered: &'a AtomicU64,
    ) -> Self {
        mode.mark_changed();
        Self { direction, mode, delivered, waiting: VecDeque::new(), left: None }
    }

    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), End> {
        let mut bytes = vec![0; Self::CHUNK];
        let mut has_ended = false;
        let mut not_before = Instant::now();
        loop {
            let flow = self.flow();
            let mut due = None;
            match flow {
                Flow::Cut => return Err(End::Cut),
                // The end of the connection is kept, and delivered in a later mode.
                Flow::Lose => self.waiting.retain(|(_, bytes)| bytes.is_empty()),
                Flow::Hold => {}
                Flow::Deliver { after, .. } => {
                    due = self.waiting.front().map(|(came, _)| (*came + after).max(not_before));
                }
            }
            tokio::select! {
                biased;
                changed = self.mode.changed() => {
                    if changed.is_err() {
                        return Err(End::Broken);
                    }
                    let mode = *self.mode.borrow_and_update();
                    self.left = match (mode, self.direction) {
                        (Mode::CutReply(bytes), Direction::Replies) => Some(bytes),
                        _ => None,
                    };
                }
                () = until(due), if due.is_some() => {
                    let Flow::Deliver { at_most, then_wait, .. } = flow else { continue };
                    if self.deliver(&mut to, at_most).await? {
                        return Ok(());
                    }
                    not_before = Instant::now() + then_wait;
                }
                read = from.read(&mut bytes),
                    if !has_ended && self.waiting.len() < Self::BUFFER =>
                {
                    let read = read?;
                    has_ended = read == 0;
                    let mut came = bytes[..read].to_vec();
                    if let Mode::Garble(rate) = *self.mode.borrow()
                        && self.direction == Direction::Replies
                        && !has_ended
                    {
                        garble(&mut came, rate);
                    }
                    self.waiting.push_back((Instant::now(), came));
                }
            }
        }
    }

    fn flow(&self) -> Flow {
        let (after, then_wait) = (Duration::ZERO, Duration::ZERO);
        let freely = Flow::Deliver { after, at_most: usize::MAX, then_wait };
        match (*self.mode.borrow(), self.direction) {
            (Mode::Blackhole, _)
            | (Mode::LoseRequests, Direction::Requests)
            | (Mode::LoseReplies, Direction::Replies) => Flow::Lose,
            (Mode::Pause, _) => Flow::Hold,
            (Mode::Delay(after), Direction::Replies) => {
                Flow::Deliver { after, at_most: usize::MAX, then_wait }
            }
            // The bytes of 10 ms at a time, at least one byte.
            (Mode::Throttle(rate), _) => {
                let at_most = (rate / 100).max(1);
                let then_wait = Duration::from_secs(1).mul_f64(at_most as f64 / rate as f64);
                Flow::Deliver { after, at_most, then_wait }
            }
            (Mode::CutReply(_), Direction::Replies) => match self.left {
                Some(0) => Flow::Cut,
                Some(at_most) => Flow::Deliver { after, at_most, then_wait },
                // The mode has just changed; `run` handles the change first.
                None => Flow::Hold,
            },
            // The connection is about to be reset; no further byte passes.
            (Mode::Reset | Mode::Refuse, _) => Flow::Hold,
            _ => freely,
        }
    }

    /// Delivers the oldest bytes. Returns true if that was the end of the connection.
    async fn deliver(&mut self, to: &mut WriteHalf<'_>, at_most: usize) -> Result<bool, End> {
        let Some((_, bytes)) = self.waiting.front_mut() else { return Ok(false) };
        if bytes.is_empty() {
            to.shutdown().await?;
            return Ok(true);
        }
        // Counted before the write, so that a receiver of the bytes finds them counted.
        let piece = &bytes[..bytes.len().min(at_most)];
        to.writable().await?;
        self.delivered.fetch_add(piece.len() as u64, Ordering::SeqCst);
        let written = to.try_write(piece);
        let short = piece.len() - written.as_ref().copied().unwrap_or(0);
        self.delivered.fetch_sub(short as u64, Ordering::SeqCst);
        let written = match written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            written => written?,
        };
        bytes.drain(..written);
        if bytes.is_empty() {
            self.waiting.pop_front();
        }
        if let Some(left) = &mut self.left {
            *left -= written;
        }
        Ok(false)
    }
}
