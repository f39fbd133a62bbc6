//! What a redis-server and a process have done so far, as they and the kernel count it.

use crate::redis_process::Server;

/// What a server has done so far.
pub(crate) struct Counted {
    /// Those inside scripts too.
    pub(crate) commands: f64,
    /// Times that it read from a client: once a round trip.
    pub(crate) trips: f64,
    /// In and out.
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

/// Of a process so far, in its own code and in the kernel's (Linux).
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux' /proc");
    // The program's name is in brackets, and may contain anything.
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let field = |at: usize| -> f64 {
        let field = fields.split(' ').nth(at).and_then(|field| field.parse().ok());
        field.expect("clock ticks")
    };
    (field(11) + field(12)) / rustix::param::clock_ticks_per_second() as f64
}
