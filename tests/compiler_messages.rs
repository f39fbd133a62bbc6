//! The sentences of this crate in the messages of the compiler. Each program below has a mistake of
//! a new user. The test compares our own sentences, and no words of the compiler.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "that is how a test fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const HEAD: &str = "use lazy_layers_cache::*;\n";

/// A program with a mistake, and sentences that its message must contain.
struct Case {
    program: &'static str,
    sentences: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        program: "pub struct Id(u64);
            pub fn f() { let _ = LazyLayersCache::<Id, String>::builder(); }",
        sentences: &[
            "`Id` cannot be the key of a cache",
            "this type does not implement `CacheKey`",
            "{ KeyText::display(&self.id) }`",
        ],
    },
    Case {
        program: "async fn find() -> Result<String, Error> { Ok(String::new()) }
            pub async fn f(cache: &LazyLayersCache<u64, String>) {
                let _ = cache.get_or_set(&7, find()).await;
            }",
        sentences: &[
            "is not a loader of `String`",
            "pass a closure that returns the future: `move || async move { .. }`",
        ],
    },
    Case {
        program: "pub async fn f(cache: &LazyLayersCache<u64, String>) {
                let _ = cache.get_or_set(&7, || async { Ok::<u32, Error>(1) }).await;
            }",
        sentences: &[
            "a loader of `String` cannot return `u32`",
            "expected `String`, `Arc<String>`, `Option<String>` or `Loaded<String>`, in a `Result`",
        ],
    },
    Case {
        program: "pub fn f(builder: CacheBuilder<u64, String>) {
                let _ = builder.l2(RedisStore::at(\"redis://127.0.0.1/\"), WireCodec::new());
            }",
        sentences: &["is not a store for L2", "call `build()?` on it"],
    },
    Case {
        program: "pub fn f() {
                let _ = EventBus::new(RedisTransport::at(\"redis://127.0.0.1/\"));
            }",
        sentences: &["is not a transport of an event bus", "call `build()?` on it"],
    },
    Case {
        program: "pub fn f(builder: CacheBuilder<u64, String>, store: RedisStore) {
                let _ = builder.l2(store, 7);
            }",
        sentences: &["is not a codec of `String`", "expected a codec, such as `WireCodec::new()`"],
    },
];

#[test]
fn the_compiler_says_what_to_do() {
    let library = library();
    for Case { program, sentences } in CASES {
        let message = errors_of(program, &library);
        for sentence in *sentences {
            assert!(message.contains(sentence), "no {sentence:?} in the message:\n{message}");
        }
    }
}

/// The library that Cargo has built for this test: the newest one with which a right program
/// compiles. Others may have other features, or be from another compiler.
fn library() -> PathBuf {
    let right = "async fn find() -> Result<String, std::io::Error> { Ok(String::new()) }
        pub async fn f(cache: &LazyLayersCache<u64, String>, _: RedisStore) {
            let _ = cache.get_or_set(&7, || find()).await;
        }";
    let mut libraries: Vec<PathBuf> =
        fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path()).collect();
    libraries.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("liblazy_layers_cache-") && name.ends_with(".rlib")
    });
    libraries.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    let fitting = libraries.into_iter().rev().find(|library| errors_of(right, library).is_empty());
    fitting.expect("a library with which a right program compiles")
}

/// The folder of this test, `target/debug/deps`.
fn folder() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// Compiles a program, and returns all messages, labels and notes of its errors.
fn errors_of(program: &str, library: &Path) -> String {
    let folder_of_program = tempfile::tempdir().unwrap();
    let source = folder_of_program.path().join("program.rs");
    fs::write(&source, format!("{HEAD}{program}")).unwrap();
    let output = Command::new("rustc")
        .args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata"])
        .args(["--error-format", "json", "-o"])
        .arg(folder_of_program.path().join("program.rmeta"))
        .arg("-L")
        .arg(format!("dependency={}", folder().display()))
        .arg("--extern")
        .arg(format!("lazy_layers_cache={}", library.display()))
        .arg(&source)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let messages = stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let errors: String =
        messages.filter(|it| it["level"] == "error").map(|it| text_of(&it)).collect();
    assert_eq!(errors.is_empty(), output.status.success(), "{stderr}");
    errors
}

/// The text of a message, of the labels in it, and of its notes.
fn text_of(message: &Value) -> String {
    let list = |name: &str| message[name].as_array().cloned().unwrap_or_default();
    let labels = list("spans");
    let mut lines: Vec<String> =
        labels.iter().filter_map(|span| span["label"].as_str()).map(str::to_owned).collect();
    lines.insert(0, message["message"].as_str().unwrap_or_default().to_owned());
    lines.extend(list("children").iter().map(text_of));
    lines.join("\n") + "\n"
}
