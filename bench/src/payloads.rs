//! Payloads: the size of a megabyte of JSON in each encoding, the time to encode and decode it, and
//! gzip beside zlib in C, at the default level.

use std::{
    hint::black_box,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use lazy_layers_cache::{Codec, WireCodec};

use crate::{
    measure::{figures, median},
    report::{AtMost, Report},
    sample_payloads::{Listing, players, products},
};

const ROUNDS: usize = 25;
/// Size of the MessagePack with its prefix.
const PREFIX: usize = 4;

pub(crate) fn run(report: &mut Report) {
    let packed = || WireCodec::new().gzip_from(usize::MAX);
    let codecs = [
        ("JSON", WireCodec::new().json()),
        ("MessagePack", packed()),
        ("MessagePack, gzip", WireCodec::new()),
        ("MessagePack, zstd", packed().zstd_from(0)),
        ("MessagePack, lz4", packed().lz4_from(0)),
    ];
    for (name, listing) in
        [("a listing of products", products()), ("a listing that repeats itself", players())]
    {
        report.title(&format!("{name}: bytes, ms to encode, ms to decode; ratios to JSON"));
        let encode = |codec: &WireCodec| codec.encode(&listing).expect("it can be said");
        let bytes = codecs.each_ref().map(|(_, codec)| encode(codec));
        let mut zlib = Zlib::over(&bytes[1][PREFIX..]);
        let mut encoding = vec![Vec::new(); codecs.len()];
        let mut decoding = vec![Vec::new(); codecs.len()];
        let mut by_zlib = Vec::new();
        for round in 0..=ROUNDS {
            let (took, length) = zlib.compress();
            for (at, (_, codec)) in codecs.iter().enumerate() {
                let encoded = millis(|| drop(black_box(encode(codec))));
                let decoded = millis(|| {
                    drop(black_box(Codec::<Listing>::decode(codec, &bytes[at]).expect("a value")));
                });
                // The first round warms up.
                if round > 0 {
                    encoding[at].push(encoded);
                    decoding[at].push(decoded);
                }
            }
            if round > 0 {
                by_zlib.push((took, length));
            }
        }
        let (encoded, decoded) = (figures(&encoding, 0), figures(&decoding, 0));
        for (at, (name, _)) in codecs.iter().enumerate() {
            let length = bytes[at].len();
            report.line(&format!(
                "{name:<20} {length:>9} bytes {:>5.2}x {:>7.2} ms {:>5.2}x {:>7.2} ms {:>5.2}x",
                length as f64 / bytes[0].len() as f64,
                encoded[at].median,
                encoded[at].ratio,
                decoded[at].median,
                decoded[at].ratio,
            ));
        }
        report.end();
        report.title(&format!("{name}: its MessagePack compressed"));
        // The time that gzip adds to MessagePack, round by round.
        let gzip: Vec<f64> =
            encoding[2].iter().zip(&encoding[1]).map(|(gzip, packed)| gzip - packed).collect();
        let zlib_took: Vec<f64> = by_zlib.iter().map(|(took, _)| *took).collect();
        let ratio = median(gzip.iter().zip(&zlib_took).map(|(own, zlib)| own / zlib).collect());
        let length = by_zlib.first().map_or(f64::NAN, |(_, length)| *length);
        let own = (bytes[2].len() - PREFIX) as f64;
        report.row("zlib level 6: time", median(zlib_took), "ms", 1.0, None);
        let third = AtMost { limit: 1.0 / 3.0, of: "zlib 6" };
        report.row("gzip of lazy-layers: time", median(gzip), "ms", ratio, Some(&third));
        report.row("zlib level 6: length", length, "bytes", 1.0, None);
        let tenth = AtMost { limit: 1.1, of: "zlib 6" };
        report.row("gzip of lazy-layers: length", own, "bytes", own / length, Some(&tenth));
        report.end();
    }
}

fn millis(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64() * 1e3
}

/// zlib in C, run by Python, which measures the time itself, once per round.
///
/// Linked here, it would replace the one in Rust for the whole program: the crate flate2 has one or
/// the other.
struct Zlib {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    _file: tempfile::NamedTempFile,
}

const SCRIPT: &str = "
import sys, time, zlib
data = open(sys.argv[1], 'rb').read()
for _ in sys.stdin:
    begun = time.perf_counter()
    gzip = zlib.compressobj(6, wbits=31)
    length = len(gzip.compress(data)) + len(gzip.flush())
    print((time.perf_counter() - begun) * 1e3, length, flush=True)
";

impl Zlib {
    fn over(packed: &[u8]) -> Self {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(packed).expect("room for it");
        let mut child = Command::new("python3")
            .args(["-c", SCRIPT])
            .arg(file.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("python3 does not start ({error}): `apt-get install python3`")
            });
        let ask = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, ask, answers, _file: file }
    }

    /// Milliseconds and bytes.
    fn compress(&mut self) -> (f64, f64) {
        writeln!(self.ask).expect("it listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("it answers");
        let (took, length) = answer.trim().split_once(' ').expect("two numbers");
        (took.parse().expect("a number"), length.parse().expect("a number"))
    }
}

impl Drop for Zlib {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
