//! What an operator reads says all that an operator can write, and names tests that there are.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The keys of the structures that a file of the configuration is read into, as they are written there.
fn keys(code: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for part in code.split("#[derive(").skip(1) {
        let Some((derived, rest)) = part.split_once(")]") else { continue };
        let Some(body) = rest.split_once("pub struct ") else { continue };
        // Another item may come before the next structure.
        if !derived.contains("Deserialize") || body.0.contains("pub enum") {
            continue;
        }
        let fields = body.1.split("\n}").next().unwrap();
        let is_kebab = body.0.contains("kebab-case");
        let mut renamed = None;
        for line in fields.lines().map(str::trim) {
            if let Some((_, name)) = line.split_once("rename = \"") {
                renamed = name.split('"').next().map(str::to_owned);
            }
            let Some((name, _)) = line.strip_prefix("pub ").and_then(|field| field.split_once(':')) else {
                continue;
            };
            let name = renamed.take().unwrap_or_else(|| name.to_owned());
            keys.push(if is_kebab { name.replace('_', "-") } else { name });
        }
    }
    keys
}

fn is_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

#[test]
fn every_key_of_the_configuration_is_in_the_documentation() {
    let source = root().join("broker/src");
    let mut files = vec![source.join("config.rs")];
    files.extend(fs::read_dir(source.join("config")).unwrap().map(|entry| entry.unwrap().path()));
    let keys: Vec<String> = files.iter().flat_map(|file| keys(&fs::read_to_string(file).unwrap())).collect();
    for known in ["listen", "connections_per_address_max", "max-length-bytes", "match", "trusted"] {
        assert!(keys.iter().any(|key| key == known), "{known} is not found: {keys:?}");
    }
    let mut text = fs::read_to_string(root().join("README.md")).unwrap();
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    let unsaid: Vec<&String> = keys.iter().filter(|key| !is_word(&text, key)).collect();
    assert!(unsaid.is_empty(), "neither README.md nor docs/ say anything of {unsaid:?}");
}

/// `file.rs::name`, and further names of the same file behind it.
#[test]
fn each_test_that_the_page_for_operators_names_is_there() {
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (_, table) = text.split_once("### Shown by").unwrap();
    let (table, _) = table.split_once("\n### ").unwrap();
    let mut names = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let mut source = String::new();
        for quoted in row.split('`').skip(1).step_by(2) {
            let (file, name) = quoted.split_once("::").unwrap_or(("", quoted));
            if !file.is_empty() {
                let folder = if file == "pump.rs" { "broker/tests" } else { "tests/tests" };
                let read = fs::read_to_string(root().join(folder).join(file));
                source = read.unwrap_or_else(|error| panic!("{quoted}: {error}"));
            }
            assert!(source.contains(&format!("fn {name}(")), "{quoted} is not there");
            names += 1;
        }
    }
    assert!(names > 20, "{names}");
}
