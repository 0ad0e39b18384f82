//! The README and the guides: what they say to do works, and leads where they say it does.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::fs;
use std::path::PathBuf;

use tandem_broker::config::Config;
use tandem_tests::guide::{NO_PACKAGES, Reader, blocks, python, root};

/// Does all that a page says. What was left out on this machine is said: look with `--nocapture`.
fn follow(page: &str, with_broker: bool) {
    write_examples_anew(page);
    let reader = Reader::follow(page, with_broker);
    for skipped in &reader.skipped {
        eprintln!("left out: {skipped}");
    }
}

/// With `TANDEM_BLESS=1`, puts the examples as they are now into a page.
fn write_examples_anew(page: &str) {
    if std::env::var_os("TANDEM_BLESS").is_none() {
        return;
    }
    let path = root().join(page);
    let mut text = fs::read_to_string(&path).unwrap();
    for block in blocks(&text) {
        if let Some(example) = block.value("example") {
            text = text.replace(&block.text, &fs::read_to_string(root().join(example)).unwrap());
        }
    }
    fs::write(path, text).unwrap();
}

#[test]
fn the_readme_leads_from_nothing_to_a_browser_and_a_durable_worker() {
    follow("README.md", false);
}

#[test]
fn publishing_and_subscribing_is_as_the_guide_says() {
    follow("docs/guides/publish-subscribe.md", true);
}

#[test]
fn calls_are_as_the_guide_says() {
    follow("docs/guides/remote-procedures.md", true);
}

#[test]
fn work_queues_are_as_the_guide_says() {
    follow("docs/guides/work-queues.md", false);
}

#[test]
fn programs_in_python_are_as_the_guide_says() {
    match python() {
        Some(_) => follow("docs/guides/python.md", true),
        None => eprintln!("left out: docs/guides/python.md: {NO_PACKAGES}"),
    }
}

#[test]
fn a_page_in_a_browser_is_as_the_guide_says() {
    follow("docs/guides/browser.md", false);
}

#[test]
fn programs_in_rust_are_as_the_guide_says() {
    follow("docs/guides/client-crate.md", true);
}

#[test]
fn the_configuration_is_as_the_page_says() {
    follow("docs/configuration.md", true);
}

/// All pages that somebody may read.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    for folder in ["docs", "docs/guides"] {
        pages.extend(fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages
}

#[test]
fn what_is_shown_of_a_configuration_can_be_read() {
    let mut shown = 0;
    for page in pages() {
        for block in blocks(&fs::read_to_string(&page).unwrap()) {
            if block.words == ["toml"] {
                let place = format!("{}:{}", page.display(), block.line);
                Config::parse(&block.text).unwrap_or_else(|error| panic!("{place}: {error}"));
                shown += 1;
            }
        }
    }
    assert!(shown > 10, "{shown}");
}

#[test]
fn links_lead_to_something() {
    let mut links = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with('#') || link.contains(char::is_whitespace) {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = page.parent().unwrap().join(file);
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            let heading = |line: &&str| {
                let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                let kept = |c: &char| c.is_alphanumeric() || *c == '-' || *c == '_';
                line.starts_with('#') && title.chars().filter(kept).collect::<String>() == anchor
            };
            let target = if anchor.is_empty() { String::new() } else { fs::read_to_string(target).unwrap() };
            assert!(
                anchor.is_empty() || target.lines().any(|line| heading(&line)),
                "{}: no {link}",
                page.display()
            );
            links += 1;
        }
    }
    assert!(links > 20, "{links}");
}

#[test]
fn pages_that_are_named_are_there() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for named in text.split('`').filter(|word| word.starts_with("docs/") && word.ends_with(".md")) {
            assert!(root().join(named).exists(), "{}: there is no {named}", page.display());
        }
    }
}
