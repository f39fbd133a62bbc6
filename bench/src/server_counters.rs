//! Counters of a redis-server and of a process, as the server and the kernel keep them.

use crate::redis_process::Server;

/// The counters of a server.
pub(crate) struct Counted {
    /// Commands, including those in scripts.
    pub(crate) commands: f64,
    /// Reads from clients: one per round trip.
    pub(crate) trips: f64,
    /// Bytes received and sent.
    pub(crate) bytes: f64,
    pub(crate) cpu_seconds: f64,
}

impl Counted {
    pub(crate) fn at(server: &Server) -> Self {
        let mut connection = server.connect();
        let mut said = String::new();
        for section in ["server", "stats"] {
            let info: String =
                redis::cmd("INFO").arg(section).query(&mut connection).expect("it answers");
            said += &info;
        }
        let field = |name: &str| -> f64 {
            let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|number| number.parse().ok()).expect("a counter")
        };
        Self {
            commands: field("total_commands_processed"),
            trips: field("total_reads_processed"),
            bytes: field("total_net_input_bytes") + field("total_net_output_bytes"),
            cpu_seconds: cpu_seconds(field("process_id") as u32),
        }
    }
}

/// Processor seconds of a process, user and kernel (Linux).
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux' /proc");
    // The name of the program stands in brackets, and may contain any character.
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let field = |at: usize| -> f64 {
        let field = fields.split(' ').nth(at).and_then(|field| field.parse().ok());
        field.expect("clock ticks")
    };
    (field(11) + field(12)) / rustix::param::clock_ticks_per_second() as f64
}
