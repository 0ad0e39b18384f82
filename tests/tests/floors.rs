//! The floors of the house (`docs/architecture.md`): who may import whom. Reads the sources, not the build.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").into()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {}", folder.display());
    found.sort();
    found
}

/// The code of a file: without comments, and without the tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The paths that begin with `root` in a file.
fn paths(code: &str, root: &str) -> BTreeSet<String> {
    let start = format!("{root}::");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(&start) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + start.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap_or_default();
            found.extend(list.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()));
            continue;
        }
        let path: String =
            rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
        found.insert(path);
    }
    found
}

fn first(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}

/// The room of a file of the broker: the first folder or file under `src`.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("broker/src")).unwrap();
    let first = inside.iter().next().unwrap().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn protocols_import_nothing_of_ours_and_no_runtime() {
    for path in sources(&root().join("protocols/src")) {
        let code = code(&path);
        for forbidden in ["tandem_", "tokio", "Instant::now", "SystemTime::now", "rand::", "getrandom"] {
            assert!(!code.contains(forbidden), "{} has {forbidden}", path.display());
        }
    }
}

#[test]
fn the_languages_know_the_payload_and_not_each_other() {
    for (folder, forbidden) in
        [("wamp", ["stomp", "websocket"]), ("stomp", ["wamp", "websocket"]), ("websocket", ["wamp", "stomp"])]
    {
        for path in sources(&root().join("protocols/src").join(folder)) {
            for import in paths(&code(&path), "crate") {
                assert!(!forbidden.contains(&first(&import)), "{} imports {import}", path.display());
            }
        }
    }
}

#[test]
fn core_knows_only_the_payload_and_waits_for_nothing() {
    for path in sources(&root().join("broker/src/core")) {
        let code = code(&path);
        for import in paths(&code, "tandem_protocols") {
            assert_eq!(first(&import), "payload", "{} imports tandem_protocols::{import}", path.display());
        }
        for import in paths(&code, "crate") {
            assert!(["core", "metrics"].contains(&first(&import)), "{} imports {import}", path.display());
        }
        for forbidden in ["tokio", "hyper", ".await", "async ", "Instant::now", "SystemTime::now", "rand::"] {
            assert!(!code.contains(forbidden), "{} has {forbidden}", path.display());
        }
    }
}

#[test]
fn the_wings_do_not_import_each_other() {
    // Who may import what, of the rooms of the broker.
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("core", &["core", "metrics"][..]),
        ("metrics", &["metrics"]),
        ("wamp", &["wamp", "core", "metrics"]),
        ("stomp", &["stomp", "core", "metrics"]),
        ("front", &["front", "core", "metrics"]),
        ("local", &["local", "core"]),
        ("authenticator", &["authenticator", "core", "local"]),
        ("memory", &["memory"]),
        ("config", &["config", "core", "front", "authenticator", "memory", "store", "tokens"]),
        ("store", &["store", "core", "metrics"]),
        ("tokens", &["tokens", "core"]),
        ("users", &["users", "config", "core", "tokens"]),
        ("authorizer", &["authorizer", "core", "local"]),
        (
            "server",
            &[
                "server",
                "authenticator",
                "authorizer",
                "config",
                "core",
                "front",
                "local",
                "memory",
                "stomp",
                "store",
                "tokens",
                "users",
                "wamp",
                "metrics",
            ],
        ),
        ("embed", &["embed", "config", "core", "front", "server"]),
        ("cli", &["cli", "config", "core", "server", "users"]),
        ("lib", &[]),
        ("main", &[]),
    ]);
    for path in sources(&root().join("broker/src")) {
        let room = room(&path);
        let allowed = allowed.get(&*room).unwrap_or_else(|| panic!("the room {room} is not in the plan"));
        for import in paths(&code(&path), "crate") {
            assert!(allowed.contains(&first(&import)), "{} imports {import}", path.display());
        }
    }
}

#[test]
fn a_wing_knows_only_its_own_language() {
    for (wing, language) in [("wamp", "wamp"), ("stomp", "stomp")] {
        for path in sources(&root().join("broker/src").join(wing)) {
            for import in paths(&code(&path), "tandem_protocols") {
                let known = ["payload", language].contains(&first(&import));
                assert!(known, "{} imports tandem_protocols::{import}", path.display());
            }
        }
    }
    for path in sources(&root().join("broker/src/front")) {
        for import in paths(&code(&path), "tandem_protocols") {
            // RawSocket is a wire; that WAMP defines it does not make it WAMP.
            let known = first(&import) == "websocket" || import.starts_with("wamp::rawsocket");
            assert!(known, "{} imports tandem_protocols::{import}", path.display());
        }
    }
}

#[test]
fn only_the_command_line_knows_the_load_generator() {
    for path in sources(&root().join("broker/src")) {
        let knows = code(&path).contains("tandem_bench");
        assert!(!knows || room(&path) == "cli", "{} knows the load generator", path.display());
    }
}

#[test]
fn only_what_is_for_applications_knows_the_client() {
    for path in sources(&root().join("broker/src")) {
        let knows = code(&path).contains("tandem_client");
        let is_for_applications = ["embed", "cli"].contains(&room(&path).as_str());
        assert!(!knows || is_for_applications, "{} knows the client", path.display());
    }
}

#[test]
fn the_client_does_not_know_the_broker() {
    for path in sources(&root().join("client/src")) {
        assert!(!code(&path).contains("tandem_broker"), "{} knows the broker", path.display());
    }
}

#[test]
fn the_load_generator_does_not_know_the_broker() {
    for path in sources(&root().join("bench/src")) {
        assert!(!code(&path).contains("tandem_broker"), "{} knows the broker", path.display());
    }
}

#[test]
fn declaring_files_define_nothing() {
    for folder in ["protocols/src", "broker/src", "client/src", "bench/src"] {
        for path in sources(&root().join(folder)) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name != "mod.rs" && name != "lib.rs" || path.ends_with("cli/mod.rs") {
                continue;
            }
            for line in code(&path).lines().map(str::trim_start) {
                let defines =
                    ["fn ", "pub fn ", "struct ", "pub struct ", "enum ", "pub enum ", "impl ", "trait "];
                let defined = defines.iter().any(|start| line.starts_with(start));
                assert!(!defined, "{} defines: {line}", path.display());
            }
        }
    }
}

/// The modules of a crate, and which of them each imports. A folder's own files may use what the file that
/// declares them holds: the two are one module in two places.
fn imports(base: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let module = |path: &Path| {
        let inside = path.strip_prefix(base).unwrap().with_extension("");
        inside.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("::")
    };
    let files = sources(base).into_iter().filter(|path| {
        let name = path.file_name().unwrap();
        name != "mod.rs" && name != "lib.rs"
    });
    let files: BTreeMap<String, PathBuf> = files.map(|path| (module(&path), path)).collect();
    // A path leads to an item: to the longest beginning of it that is a file.
    let resolve = |import: &str| {
        let mut path = import;
        while !files.contains_key(path) {
            path = path.rsplit_once("::")?.0;
        }
        Some(path.to_owned())
    };
    let imports_of = |own: &String, path: &PathBuf| {
        let found = paths(&code(path), "crate").into_iter().filter_map(|import| resolve(&import));
        found.filter(|import| import != own && !own.starts_with(&format!("{import}::"))).collect()
    };
    files.iter().map(|(own, path)| (own.clone(), imports_of(own, path))).collect()
}

#[test]
fn no_imports_go_in_a_circle() {
    for crate_sources in ["protocols/src", "broker/src", "client/src", "bench/src"] {
        let mut left = imports(&root().join(crate_sources));
        // Take away what imports nothing that is left, until nothing is left.
        while !left.is_empty() {
            let free: Vec<String> = left
                .iter()
                .filter(|(_, imports)| imports.iter().all(|import| !left.contains_key(import)))
                .map(|(own, _)| own.clone())
                .collect();
            assert!(!free.is_empty(), "{crate_sources}: a circle among {left:#?}");
            free.iter().for_each(|own| drop(left.remove(own)));
        }
    }
}
