//! A real redis-server for one test, on a free loopback port. It stops with the test.

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

/// Limit for replies; a server that replies at all is far faster.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct RedisServer {
    process: Process,
    port: u16,
    /// Login in the URL.
    login: Login,
    /// Login of the test itself, which may run every command.
    own_login: Login,
    tls: Option<(u16, Certificate)>,
    arguments: Vec<String>,
    /// The connection of the test, for counters and settings. Kept open, so that reading a counter
    /// costs the server one command.
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
    /// Number of commands of the test itself, which the counters leave out.
    asked: u64,
}

impl RedisServer {
    /// Returns the major version of the program that the tests start.
    pub(crate) fn major_version() -> u32 {
        let output = program().arg("--version").output().expect("redis-server runs");
        let text = String::from_utf8(output.stdout).unwrap();
        let version = text.split_once("v=").expect("a version").1;
        version.split('.').next().unwrap().parse().unwrap()
    }

    /// Starts a server that saves only on [`save`](Self::save), and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more arguments, for example `["--maxmemory", "1mb"]`.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::launch(arguments, [Login::default(), Login::default()], |_, _| None)
    }

    /// Starts a server that requires a password.
    pub(crate) fn start_with_password(password: &str) -> Self {
        let login = Login { user: None, password: Some(password.to_owned()) };
        Self::launch(&["--requirepass", password], [login.clone(), login], |_, _| None)
    }

    /// Starts a server that requires a named user with the ACL rules `rules`, for example
    /// `~* &* +@all`. Clients without a login may run no command.
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

    /// Starts a server with TLS at [`RedisServer::url`]. The plain port is for the test itself.
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
        // Another process may take the free port before the server does: then try the next one.
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

    /// Returns the URL for clients, with their login.
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

    /// Returns the file of the certificate authority that clients must trust, in PEM.
    pub(crate) fn authority(&self) -> &Path {
        &self.tls.as_ref().expect("started with TLS").1.authority
    }

    /// Returns the directory of the snapshots.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Connects with the login of the test, which may run every command.
    pub(crate) fn connect(&self) -> Connection {
        self.try_connect().expect("the server answers")
    }

    /// Connects without a greeting, so that it costs the server no command, and with a time limit,
    /// as the server may be frozen.
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
            // The server replies with LOADING until it has read its snapshot.
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

    /// Kills the server: connections break, and unsaved data is lost.
    pub(crate) fn kill(&mut self) {
        *self.lock() = Admin::default();
        self.process.kill();
    }

    /// Kills the server if it runs, and starts it again on the same port with its last snapshot.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.arguments);
        assert!(self.answers(), "redis-server does not come back on port {}", self.port);
    }

    /// As [`restart`](Self::restart), with more arguments.
    pub(crate) fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().copied().map(str::to_owned));
        self.restart();
    }

    /// Stops the process: the server does not reply. Its connections stay open, and the kernel
    /// accepts new ones.
    pub(crate) fn freeze(&self) {
        self.process.freeze();
    }

    pub(crate) fn thaw(&self) {
        self.process.thaw();
    }

    /// Writes a snapshot, which the next restart restores.
    pub(crate) fn save(&self) {
        self.admin(|redis| redis::cmd("SAVE").exec(redis));
    }

    /// Writes a snapshot and stops, as on an orderly shutdown.
    pub(crate) fn shutdown_save(&mut self) {
        // The server closes the connection instead of a reply.
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

    /// Returns the number of commands that the server ran, with those inside scripts and without
    /// those of the test.
    pub(crate) fn commands_processed(&self) -> u64 {
        self.counter("total_commands_processed")
    }

    /// Returns the number of reads from clients: one per round trip, however many commands are in
    /// a pipeline, and one when a client disconnects. Without those of the test.
    pub(crate) fn round_trips(&self) -> u64 {
        self.counter("total_reads_processed")
    }

    fn counter(&self, name: &str) -> u64 {
        let stats = self.info("stats");
        let asked = self.lock().asked;
        let all = field(&stats, name).unwrap_or_else(|| panic!("no {name} in {stats}"));
        // A command is counted at its end, a read at its start.
        let ours = if name == "total_commands_processed" { asked - 1 } else { asked };
        all.parse::<u64>().unwrap() - ours
    }

    /// Returns the number of runs of a command, for example `get` or `script|load`, with those in
    /// scripts.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let stats = self.info("commandstats");
        let Some(line) = field(&stats, &format!("cmdstat_{command}")) else { return 0 };
        line.split(',').find_map(|part| part.strip_prefix("calls=")).unwrap().parse().unwrap()
    }

    pub(crate) fn info(&self, section: &str) -> String {
        self.admin(|redis| redis::cmd("INFO").arg(section).query(redis))
    }

    fn admin<T>(&self, run: impl Fn(&mut Connection) -> redis::RedisResult<T>) -> T {
        let mut admin = self.lock();
        admin.asked += 1;
        let connection = admin.connection.get_or_insert_with(|| self.connect());
        let mut answer = run(connection);
        // A sentinel disconnects all clients of a replica that it promotes.
        if answer.as_ref().is_err_and(redis::RedisError::is_connection_dropped) {
            answer = run(admin.connection.insert(self.connect()));
        }
        answer.expect("the server runs the command")
    }

    fn lock(&self) -> MutexGuard<'_, Admin> {
        self.admin.lock().unwrap()
    }
}

fn spawn(arguments: &[String]) -> Process {
    Process::start(program().args(arguments), "redis-server")
}

/// Returns the command that starts a server: another version of Redis, or Valkey, if this variable
/// of the environment names its program.
pub(crate) fn program() -> Command {
    let named = std::env::var_os("LAZY_LAYERS_REDIS_SERVER");
    Command::new(named.unwrap_or_else(|| "redis-server".into()))
}

pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
