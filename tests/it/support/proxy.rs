//! A network that fails on demand: a TCP proxy in front of any server, on a thread and a clock of
//! its own, so that tests on paused time can use it.

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

/// What the network does to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Bytes vanish in both directions, and so does a hang-up: neither end notices anything.
    Blackhole,
    /// Requests vanish; replies still come.
    LoseRequests,
    /// The server gets and does what it is asked; nobody hears of it.
    LoseReplies,
    /// Nothing moves, nothing is lost: it comes when the pause is over.
    Pause,
    /// Each reply comes that much later; requests come at once, so it is added once a round trip.
    Delay(Duration),
    /// That many bytes a second, in each direction.
    Throttle(usize),
    /// That many more bytes of replies come through, then both ends see an orderly end.
    CutReply(usize),
    /// Of replies, one byte in so many is another, gone, or followed by more.
    Garble(usize),
    /// The connection breaks with a reset; new ones are accepted and then reset.
    Reset,
    /// As `Reset`, and nobody listens any more.
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
    standing_too: bool,
    done: std::sync::mpsc::Sender<()>,
}

impl Proxy {
    /// Listens on a free loopback port and passes all on to that port of loopback.
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
        let network = Network { port, server, counts: Arc::clone(&counts), standing: Vec::new() };
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

    /// For connections that stand and for new ones. In force when it returns.
    pub(crate) fn set(&self, mode: Mode) {
        self.switch(mode, true);
    }

    /// For new connections only; those that stand go on as they are.
    pub(crate) fn set_for_new(&self, mode: Mode) {
        self.switch(mode, false);
    }

    fn switch(&self, mode: Mode, standing_too: bool) {
        let (done, is_done) = std::sync::mpsc::channel();
        let commands = self.commands.as_ref().expect("only drop takes it");
        commands.send(Switch { mode, standing_too, done }).expect("the proxy runs");
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
    /// One per connection that stands.
    standing: Vec<watch::Sender<Mode>>,
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
                    if switch.standing_too {
                        self.switch_standing(mode).await;
                    }
                    let _ = switch.done.send(());
                }
                Ok(client) = accepted(listener.as_ref()) => self.connect(client, mode),
            }
        }
    }

    async fn switch_standing(&mut self, mode: Mode) {
        self.standing.retain(|connection| connection.send(mode).is_ok());
        if matches!(mode, Mode::Reset | Mode::Refuse) {
            for connection in self.standing.drain(..) {
                connection.closed().await;
            }
        }
    }

    fn connect(&mut self, client: TcpStream, mode: Mode) {
        self.counts.connections.fetch_add(1, Ordering::SeqCst);
        let (sender, mode) = watch::channel(mode);
        self.standing.retain(|connection| !connection.is_closed());
        self.standing.push(sender);
        tokio::spawn(carry(client, self.server, mode, Arc::clone(&self.counts)));
    }
}

async fn accepted(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

/// The timer counts whole milliseconds, which what is due already need not wait for.
async fn until(due: Option<Instant>) {
    if let Some(due) = due
        && due > Instant::now()
    {
        sleep_until(due).await;
    }
}

/// One connection from its beginning to its end.
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
        // There is no server. Whoever is cut off from it does not notice.
        let _ = mode.wait_for(|mode| !matches!(mode, Mode::Blackhole | Mode::Pause)).await;
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    let broken = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = upstream.split();
        let requests = Pump::new(Way::Requests, mode.clone(), &counts.requested);
        let replies = Pump::new(Way::Replies, mode.clone(), &counts.replied);
        tokio::select! {
            _ = mode.wait_for(reset) => true,
            end = async {
                tokio::try_join!(requests.run(from_client, to_server), replies.run(from_server, to_client))
            } => matches!(end, Err(End::Broken)),
        }
    };
    if broken {
        let _ = (client.set_zero_linger(), upstream.set_zero_linger());
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Requests,
    Replies,
}

/// Never to nothing, which would be a hang-up.
fn garble(bytes: &mut Vec<u8>, rate: usize) {
    for _ in 0..bytes.len().div_ceil(rate) {
        let at = fastrand::usize(..bytes.len());
        match fastrand::u8(..8) {
            0 if bytes.len() > 1 => drop(bytes.remove(at)),
            1 => bytes.insert(at, fastrand::u8(..)),
            // What begins an answer in Redis' protocol, and lengths.
            2 => bytes[at] = fastrand::choice(*b"$*:+-_#%~>,(=|!").unwrap(),
            3 => bytes[at] = fastrand::u8(b'0'..=b'9'),
            4 => drop(bytes.splice(at..at, *b"\r\n*4294967295\r\n")),
            5 => drop(bytes.splice(at..at, *b"99999999999")),
            _ => bytes[at] ^= 1 << fastrand::u8(..8),
        }
    }
}

/// Why a connection ends before both sides have hung up.
enum End {
    Cut,
    Broken,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// What a mode means for one direction.
enum Flow {
    Deliver { after: Duration, at_most: usize, then_wait: Duration },
    Lose,
    Hold,
    Cut,
}

struct Pump<'a> {
    way: Way,
    mode: watch::Receiver<Mode>,
    delivered: &'a AtomicU64,
    /// What came and is still to be delivered, and when it came; nothing at all is a hang-up.
    waiting: VecDeque<(Instant, Vec<u8>)>,
    /// What is left of `CutReply`.
    left: Option<usize>,
}

impl<'a> Pump<'a> {
    /// What a direction takes in before the sender has to wait, as a socket's buffer.
    const BUFFER: usize = 64;
    const CHUNK: usize = 16 * 1024;

    fn new(way: Way, mut mode: watch::Receiver<Mode>, delivered: &'a AtomicU64) -> Self {
        mode.mark_changed();
        Self { way, mode, delivered, waiting: VecDeque::new(), left: None }
    }

    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), End> {
        let mut bytes = vec![0; Self::CHUNK];
        let mut hung_up = false;
        let mut not_before = Instant::now();
        loop {
            let flow = self.flow();
            let mut due = None;
            match flow {
                Flow::Cut => return Err(End::Cut),
                // A hang-up is not lost for good: it comes out when the network is back.
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
                    self.left = match mode {
                        Mode::CutReply(bytes) if self.way == Way::Replies => Some(bytes),
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
                read = from.read(&mut bytes), if !hung_up && self.waiting.len() < Self::BUFFER => {
                    let read = read?;
                    hung_up = read == 0;
                    let mut came = bytes[..read].to_vec();
                    if let (Mode::Garble(rate), Way::Replies) = (*self.mode.borrow(), self.way)
                        && !hung_up
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
        match (*self.mode.borrow(), self.way) {
            (Mode::Blackhole, _)
            | (Mode::LoseRequests, Way::Requests)
            | (Mode::LoseReplies, Way::Replies) => Flow::Lose,
            (Mode::Pause, _) => Flow::Hold,
            (Mode::Delay(after), Way::Replies) => {
                Flow::Deliver { after, at_most: usize::MAX, then_wait }
            }
            // A hundredth of a second's bytes at a time, or one by one.
            (Mode::Throttle(rate), _) => {
                let at_most = (rate / 100).max(1);
                let then_wait = Duration::from_secs(1).mul_f64(at_most as f64 / rate as f64);
                Flow::Deliver { after, at_most, then_wait }
            }
            (Mode::CutReply(_), Way::Replies) => match self.left {
                Some(0) => Flow::Cut,
                Some(at_most) => Flow::Deliver { after, at_most, then_wait },
                // Switched a moment ago; the change is taken up first.
                None => Flow::Hold,
            },
            // Whoever is connected is reset at once: not one byte more.
            (Mode::Reset | Mode::Refuse, _) => Flow::Hold,
            _ => freely,
        }
    }

    /// Delivers from what waits first. Whether that was the hang-up.
    async fn deliver(&mut self, to: &mut WriteHalf<'_>, at_most: usize) -> Result<bool, End> {
        let Some((_, bytes)) = self.waiting.front_mut() else { return Ok(false) };
        if bytes.is_empty() {
            to.shutdown().await?;
            return Ok(true);
        }
        // Counted first: whoever has the bytes in hand finds them counted.
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
