//! The layers are as documented: `actors/src/lib.rs` lists them, and no module names one above its
//! own. Checked are `crate::` paths, in imports and inline. Tests are left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The modules in the order in which `lib.rs` lists them, the lowest first.
fn layers() -> Vec<String> {
    let lib = read(&source().join("lib.rs"));
    let listed = lib.lines().filter_map(|line| {
        let (number, rest) = line.strip_prefix("//! ")?.trim_start().split_once(". `")?;
        number.parse::<u32>().ok()?;
        Some(rest.split_once('`')?.0.to_owned())
    });
    listed.collect()
}

fn is_test(name: &str) -> bool {
    matches!(name, "tests" | "tests.rs" | "testing.rs" | "lib.rs")
}

fn files_below(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_file() {
        into.push(path.to_owned());
        return;
    }
    for entry in fs::read_dir(path).expect("the folder is there") {
        let entry = entry.expect("it can be listed");
        if !is_test(&entry.file_name().to_string_lossy()) {
            files_below(&entry.path(), into);
        }
    }
}

/// The top-level modules that a file names after `crate::`.
fn names(text: &str) -> BTreeSet<String> {
    let tests = text.find("\nmod tests {").unwrap_or(text.len());
    let code: Vec<_> =
        text[..tests].lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let mut names = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        // `use crate::{a::b, c}` names several.
        let list = rest.strip_prefix('{').and_then(|list| list.split_once('}'));
        let paths = list.map_or(vec![rest], |(list, _)| list.split(',').collect());
        for path in paths {
            let end = |c: char| !c.is_alphanumeric() && c != '_';
            names.extend(path.trim_start().split(end).next().map(str::to_owned));
        }
    }
    names
}

type Arrows = BTreeMap<String, BTreeMap<String, PathBuf>>;

/// Which modules each module names, with a file in which it does.
fn arrows() -> Arrows {
    let mut arrows = Arrows::new();
    for entry in fs::read_dir(source()).expect("the folder is there") {
        let entry = entry.expect("it can be listed");
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_test(&name) {
            continue;
        }
        let module = name.trim_end_matches(".rs").to_owned();
        let named = arrows.entry(module.clone()).or_default();
        let mut files = Vec::new();
        files_below(&entry.path(), &mut files);
        for file in files {
            for other in names(&read(&file)) {
                if other != module {
                    named.entry(other).or_insert_with(|| file.clone());
                }
            }
        }
    }
    let modules: BTreeSet<_> = arrows.keys().cloned().collect();
    for named in arrows.values_mut() {
        // Types and macros of the crate's root are not modules.
        named.retain(|name, _| modules.contains(name));
    }
    arrows
}

/// The shortest path along the arrows.
fn way(arrows: &Arrows, from: &str, to: &str) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![from.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        let last = way.last().expect("a way begins somewhere");
        if last == to {
            return Some(way);
        }
        if seen.insert(last.clone()) {
            ways.extend(arrows[last].keys().map(|next| [way.clone(), vec![next.clone()]].concat()));
        }
    }
    None
}

/// Planted: `use crate::write::WritePath` in `range_owner`.
#[test]
fn no_module_names_one_above_it() {
    let (layers, arrows) = (layers(), arrows());
    let listed: BTreeSet<_> = layers.iter().cloned().collect();
    let there: BTreeSet<_> = arrows.keys().cloned().collect();
    assert_eq!(listed, there, "the layers in lib.rs (left) are the modules (right)");
    let height = |module: &str| layers.iter().position(|layer| layer == module);
    let mut wrong = Vec::new();
    for (module, named) in &arrows {
        for (other, file) in named {
            if height(other) > height(module) {
                let circle = way(&arrows, other, module).map_or_else(String::new, |back| {
                    format!("; a circle: {module} -> {}", back.join(" -> "))
                });
                wrong.push(format!("{}: {module} names {other}{circle}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that go up:\n{}", wrong.join("\n"));
}

/// Whoever has read one actor's folder knows where to look in the others. Planted: a header without
/// `Stops:`.
#[test]
fn every_actors_folder_has_the_same_shape() {
    let actors = [
        "log_writer",
        "log_syncer",
        "log_keeper",
        "range_owner",
        "reclaimer",
        "flush_worker",
        "compaction_planner",
        "compaction_worker",
        "version_manager",
    ];
    for actor in actors {
        let folder = source().join(actor);
        let text = read(&folder.join("mod.rs"));
        for heading in ["Owns:", "Receives:", "Sends:", "Publishes:", "Stops:"] {
            let heading = format!("//! {heading}");
            assert!(text.contains(&heading), "{actor}/mod.rs has no line `{heading}`");
        }
        assert!(folder.join("run.rs").exists(), "{actor} has no run.rs");
    }
}
