//! `docs/wamp.md`: no row without a test, no test that does not exist, no feature without a row.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tandem_protocols::wamp::options::Feature;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").into()
}

fn rows() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("docs/wamp.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).filter(|cells: &Vec<String>| cells[0] != "Feature").collect()
}

/// What stands in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether a source has a test, or a scenario of the conformance suite, of this name.
fn has_test(source: &str, name: &str) -> bool {
    let definitions = [format!("fn {name}("), format!("def {name}("), format!("\"{name}\"")];
    definitions.iter().any(|definition| source.contains(definition))
}

#[test]
fn each_row_names_tests_that_exist() {
    let rows = rows();
    assert!(rows.len() > 30);
    for row in &rows {
        let proof = row.last().unwrap();
        let mut source = String::new();
        let mut tests = 0;
        for word in quoted(proof) {
            if word.contains('/') {
                source =
                    fs::read_to_string(root().join(word)).unwrap_or_else(|error| panic!("{word}: {error}"));
            } else {
                assert!(has_test(&source, word), "{}: there is no {word}", row[0]);
                tests += 1;
            }
        }
        assert!(tests > 0, "{} is without a test", row[0]);
    }
}

#[test]
fn each_feature_that_can_be_announced_has_a_row() {
    let rows = rows();
    let announced: BTreeSet<&str> =
        rows.iter().filter(|row| row.len() == 4).flat_map(|row| quoted(&row[1])).collect();
    for feature in Feature::ALL {
        assert!(announced.contains(feature.as_str()), "{} has no row", feature.as_str());
    }
}
