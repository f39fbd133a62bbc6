//! `processes [--seconds n] [--seed n] [--fault name]... [bus]...`: see `scripts/processes`.

fn main() -> std::process::ExitCode {
    sim::processes::main(std::env::args().skip(1))
}
