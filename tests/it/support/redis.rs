//! A real redis-server of a test's own, on a free loopback port, gone with the test.

use std::{
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use redis::{Client, Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use tempfile::TempDir;

use super::{
    certificate::Certificate,
    process::{Process, free_port, own_dir},
};

/// Far longer than a server takes that answers at all.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct RedisServer {
    process: Process,
    port: u16,
    /// What the URL says.
    login: Login,
    /// Who we are ourselves: we may do everything, whatever the users may.
    own_login: Login,
    tls: Option<(u16, Certificate)>,
    arguments: Vec<String>,
    /// Ours, for counters and settings: kept open, so that asking costs the server one command.
    admin: Mutex<Admin>,
    dir: TempDir,
}

#[derive(Clone, Default)]
struct Login {
    user: Option<String>,
    password: Option<String>,
}

#[derive(Default)]
struct Admin {
    connection: Option<Connection>,
    /// How often we asked for the counters: what a test counts is what others did.
    asked: u64,
}

impl RedisServer {
    /// Starts a server that saves only when told, and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more arguments for redis-server, as `["--maxmemory", "1mb"]`.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::launch(arguments, [Login::default(), Login::default()], |_, _| None)
    }

    /// Answers only to those who know the password.
    pub(crate) fn start_with_password(password: &str) -> Self {
        let login = Login { user: None, password: Some(password.to_owned()) };
        Self::launch(&["--requirepass", password], [login.clone(), login], |_, _| None)
    }

    /// Answers only to a user with a name, who may do what `rules` says, as `~* &* +@all`. Whoever
    /// does not log in may do nothing.
    pub(crate) fn start_with_user(user: &str, password: &str, rules: &str) -> Self {
        let login = |user: &str, password: &str| Login {
            user: Some(user.to_owned()),
            password: Some(password.to_owned()),
        };
        let rules = format!(
            "--user default off --user {user} on >{password} {rules} \
             --user tests on >tests ~* &* +@all"
        );
        let arguments: Vec<&str> = rules.split_whitespace().collect();
        Self::launch(&arguments, [login(user, password), login("tests", "tests")], |_, _| None)
    }

    /// Speaks TLS where [`RedisServer::url`] leads; the plain port is left to the test itself.
    pub(crate) fn start_with_tls() -> Self {
        Self::launch(&[], [Login::default(), Login::default()], |dir, arguments| {
            let port = free_port();
            let files = Certificate::written_to(dir);
            for (option, value) in [
                ("--tls-port", port.to_string()),
                ("--tls-cert-file", files.certificate.display().to_string()),
                ("--tls-key-file", files.key.display().to_string()),
                ("--tls-ca-cert-file", files.authority.display().to_string()),
                ("--tls-auth-clients", "no".to_owned()),
            ] {
                arguments.extend([option.to_owned(), value]);
            }
            Some((port, files))
        })
    }

    fn launch(
        more: &[&str],
        [login, own_login]: [Login; 2],
        tls: impl Fn(&Path, &mut Vec<String>) -> Option<(u16, Certificate)>,
    ) -> Self {
        // Between finding a free port and the server's taking it, another may: then try the next.
        for _ in 0..10 {
            let (dir, port) = (own_dir(), free_port());
            let mut arguments: Vec<String> =
                ["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]
                    .into_iter()
                    .chain(["--appendonly", "no", "--dir", dir.path().to_str().unwrap()])
                    .chain(more.iter().copied())
                    .map(str::to_owned)
                    .collect();
            let tls = tls(dir.path(), &mut arguments);
            let process = spawn(&arguments);
            let mut server = Self {
                process,
                port,
                login: login.clone(),
                own_login: own_login.clone(),
                tls,
                arguments,
                admin: Mutex::default(),
                dir,
            };
            if server.answers() {
                return server;
            }
        }
        panic!("redis-server started ten times and never answered");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where clients connect, with all they need but the authority of TLS.
    pub(crate) fn url(&self) -> String {
        let login = match (&self.login.user, &self.login.password) {
            (user, Some(password)) => format!("{}:{password}@", user.as_deref().unwrap_or("")),
            _ => String::new(),
        };
        match &self.tls {
            Some((port, _)) => format!("rediss://{login}127.0.0.1:{port}/"),
            None => format!("redis://{login}127.0.0.1:{}/", self.port),
        }
    }

    /// The authority that clients of a server with TLS have to trust, in PEM.
    pub(crate) fn authority(&self) -> &Path {
        &self.tls.as_ref().expect("started with TLS").1.authority
    }

    /// Where the server keeps what it saves.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A connection that may do everything.
    pub(crate) fn connect(&self) -> Connection {
        self.try_connect().expect("the server answers")
    }

    /// Without a greeting, so that it costs the server no command; and not for ever, should the
    /// server be frozen.
    fn try_connect(&self) -> redis::RedisResult<Connection> {
        let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(user) = &self.own_login.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.own_login.password {
            login = login.set_password(password);
        }
        let info = ConnectionAddr::Tcp("127.0.0.1".to_owned(), self.port).into_connection_info()?;
        let client = Client::open(info.set_redis_settings(login))?;
        let connection = client.get_connection_with_timeout(PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        Ok(connection)
    }

    fn answers(&mut self) -> bool {
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience {
            if self.process.exited() {
                return false;
            }
            // Not before it has read its snapshot: until then it answers LOADING.
            if let Ok(mut connection) = self.try_connect()
                && redis::cmd("PING").exec(&mut connection).is_ok()
            {
                self.lock().connection = Some(connection);
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// At once: connections break, what was not saved is lost.
    pub(crate) fn kill(&mut self) {
        *self.lock() = Admin::default();
        self.process.kill();
    }

    /// The same server again, on the same port, with what it had saved; killed first if it runs.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.arguments);
        assert!(self.answers(), "redis-server does not come back on port {}", self.port);
    }

    /// The server stops answering, while connections to it stand and new ones are accepted by the
    /// kernel.
    pub(crate) fn freeze(&self) {
        self.process.freeze();
    }

    pub(crate) fn thaw(&self) {
        self.process.thaw();
    }

    /// Writes a snapshot: what a restart brings back, however old it is by then.
    pub(crate) fn save(&self) {
        self.admin(|redis| redis::cmd("SAVE").exec(redis));
    }

    /// Saves and goes, as a server does that is shut down in order.
    pub(crate) fn shutdown_save(&mut self) {
        // It hangs up instead of answering.
        let _ = redis::cmd("SHUTDOWN").arg("SAVE").exec(&mut self.connect());
        let patience = Instant::now() + PATIENCE;
        while !self.process.exited() {
            assert!(Instant::now() < patience, "redis-server does not shut down");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    pub(crate) fn config_set(&self, name: &str, value: &str) {
        self.admin(|redis| redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(redis));
    }

    /// How many commands the server ran, those inside scripts included, our own questions not.
    pub(crate) fn commands_processed(&self) -> u64 {
        self.counter("total_commands_processed")
    }

    /// How often the server read from a client: once a round trip, however many commands came in
    /// one pipeline; and once when a client hangs up.
    pub(crate) fn round_trips(&self) -> u64 {
        self.counter("total_reads_processed")
    }

    fn counter(&self, name: &str) -> u64 {
        let stats = self.info("stats");
        let asked = self.lock().asked;
        let all = field(&stats, name).unwrap_or_else(|| panic!("no {name} in {stats}"));
        // A command counts itself once it is over, a read at once.
        let ours = if name == "total_commands_processed" { asked - 1 } else { asked };
        all.parse::<u64>().unwrap() - ours
    }

    /// How often the server ran this command, as `get` or `script|load`, scripts included.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let stats = self.info("commandstats");
        let Some(line) = field(&stats, &format!("cmdstat_{command}")) else { return 0 };
        line.split(',').find_map(|part| part.strip_prefix("calls=")).unwrap().parse().unwrap()
    }

    pub(crate) fn info(&self, section: &str) -> String {
        self.admin(|redis| redis::cmd("INFO").arg(section).query(redis))
    }

    fn admin<T>(&self, ask: impl Fn(&mut Connection) -> redis::RedisResult<T>) -> T {
        let mut admin = self.lock();
        admin.asked += 1;
        let connection = admin.connection.get_or_insert_with(|| self.connect());
        let mut answer = ask(connection);
        // A sentinel hangs up on all clients of a replica that it promotes.
        if answer.as_ref().is_err_and(redis::RedisError::is_connection_dropped) {
            answer = ask(admin.connection.insert(self.connect()));
        }
        answer.expect("the server does as it is told")
    }

    fn lock(&self) -> MutexGuard<'_, Admin> {
        self.admin.lock().unwrap()
    }
}

fn spawn(arguments: &[String]) -> Process {
    Process::start(Command::new("redis-server").args(arguments), "redis-server")
}

pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
