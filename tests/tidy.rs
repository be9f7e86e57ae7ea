//! The rules of the source itself. Each rule is a function from files to complaints. Its test says
//! two things: the repository breaks the rule nowhere, and each planted file breaks it.
//!
//! It reads text and uses nothing but std, so `.ci/check-docs` compiles and runs it by itself.
//!
//! Does not: check what rustfmt, clippy or the compiler check.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The most lines of a file without a reason in its header.
const LINES_MAX: usize = 500;
/// How the reason begins.
const REASON: &str = "//! Long because ";
/// The most columns of a line.
const COLUMNS_MAX: usize = 100;

/// Names that two types have which other modules see, and why.
/// Types of `src` are the user's view of the engine's types: plain data, without its handles.
const TWINS: &[(&str, &str)] = &[
    ("BufferStats", "src: for users"),
    ("Compression", "src: for users"),
    ("Decision", "src: for users"),
    ("Error", "src: for users"),
    ("Health", "src: for users"),
    ("KeyspaceOptions", "src: for users"),
    ("Party", "src: for users"),
    ("Pressure", "src: for users"),
    ("RangeEntry", "actors: the same one, with its owner filled in"),
    ("Progress", "src: for users"),
    ("ProgressWatch", "src: for users"),
    ("Result", "src: for users"),
    ("Superversion", "actors: the same one, with its owner filled in"),
    ("Pin", "src: for users"),
];

struct File {
    path: String,
    text: String,
}

impl File {
    /// Whether only tests see its content.
    fn is_test(&self) -> bool {
        let of_tests = ["tests", "testing", "benches", "examples"];
        self.path.split('/').any(|part| of_tests.contains(&part.trim_end_matches(".rs")))
    }

    fn is_rust(&self) -> bool {
        has_ending(&self.path, "rs")
    }

    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// Whether it is part of a library that others may use.
    fn is_library(&self) -> bool {
        let of_library = ["src/", "actors/", "storage/"];
        self.is_rust() && !self.is_test() && of_library.iter().any(|folder| self.is_in(folder))
    }
}

fn has_ending(path: &str, ending: &str) -> bool {
    Path::new(path).extension().is_some_and(|its| its == ending)
}

/// A file that is planted for a test.
fn plant(path: &str, text: impl Into<String>) -> File {
    File { path: path.to_owned(), text: text.into() }
}

fn root() -> PathBuf {
    // Run by itself, it looks in the current folder.
    env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

fn collect(folder: &Path, root: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("it can be listed").path();
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && (!name.starts_with('.') || name == ".ci") {
                collect(&path, root, files);
            }
            continue;
        }
        let relative = path.strip_prefix(root).expect("it is below").to_string_lossy().into_owned();
        let is_text = ["rs", "md", "toml"].iter().any(|ending| has_ending(&name, ending));
        if is_text || relative.starts_with(".ci/") {
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{relative}: {e}"));
            files.push(File { path: relative, text });
        }
    }
}

/// Every text file of the repository.
fn repository() -> Vec<File> {
    let root = root();
    let mut files = Vec::new();
    collect(&root, &root, &mut files);
    assert!(files.len() > 400, "{} is not the repository", root.display());
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

/// Runs a rule over the repository and over each planted file, which breaks it once.
fn check(rule: impl Fn(&[File]) -> Vec<String>, planted: Vec<File>) {
    let mut files = repository();
    let complaints = rule(&files);
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    for file in planted {
        let path = file.path.clone();
        // It replaces the file of this name.
        let place = files.iter().position(|other| other.path == path);
        let replaced = place.map(|at| files.swap_remove(at));
        files.push(file);
        assert!(!rule(&files).is_empty(), "nobody complains about what was planted in {path}");
        files.pop();
        files.extend(replaced);
    }
}

/// The text from the line of `from` up to the next heading.
fn chapter<'a>(files: &'a [File], path: &str, from: &str) -> &'a str {
    let file = files.iter().find(|file| file.path == path);
    let text = &file.unwrap_or_else(|| panic!("{path} is missing")).text;
    let start = text.find(from).unwrap_or_else(|| panic!("{path}: no {from}"));
    let rest = &text[start + from.len()..];
    rest.split_once("\n## ").map_or(rest, |(chapter, _)| chapter)
}

// --- Lines ---------------------------------------------------------------------------------------

fn long_files(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        let has_reason = file
            .text
            .lines()
            .take_while(|line| line.starts_with("//!") || line.starts_with("#!["))
            .any(|line| line.starts_with(REASON));
        if lines > LINES_MAX && !has_reason {
            complaints.push(format!("{}: {lines} lines, and no `{REASON}...`", file.path));
        }
        if lines <= LINES_MAX && has_reason {
            complaints.push(format!("{}: {lines} lines need no reason", file.path));
        }
    }
    complaints
}

#[test]
fn no_file_is_long_without_a_reason() {
    let lines = "fn f() {}\n".repeat(LINES_MAX + 1);
    let late = format!("fn f() {{}}\n{REASON}it is\n{lines}");
    check(long_files, vec![plant("src/long.rs", lines), plant("src/late.rs", late)]);
}

fn wide_lines(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for (number, line) in (1..).zip(file.text.lines()) {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX && !line.contains("https://") {
                complaints.push(format!("{}:{number}: {columns} columns", file.path));
            }
        }
    }
    for file in files.iter().filter(|file| has_ending(&file.path, "md")) {
        let mut is_code = false;
        for (number, line) in (1..).zip(file.text.lines()) {
            is_code ^= line.trim_start().starts_with("```");
            // Tables and pictures are as wide as they are. What is in backticks is not parted.
            let is_prose = !is_code && !line.starts_with(['|', '<']) && !line.starts_with("    ");
            let outside = line.trim_start().split('`').step_by(2);
            let can_be_parted = outside.skip(1).any(|text| text.contains(' '))
                || line.split('`').next().is_some_and(|text| text.trim().contains(' '));
            let columns = line.chars().count();
            if is_prose && columns > COLUMNS_MAX && can_be_parted && !line.contains("https://") {
                complaints.push(format!("{}:{number}: {columns} columns", file.path));
            }
        }
    }
    complaints
}

#[test]
fn no_line_is_wider_than_a_hundred_columns() {
    let wide = format!("// {}", "x".repeat(COLUMNS_MAX - 2));
    let prose = format!("It is {} and more.", "long ".repeat(COLUMNS_MAX / 5));
    check(wide_lines, vec![plant("storage/src/wide.rs", wide), plant("docs/wide.md", prose)]);
}

/// Where unsafe code may be.
const UNSAFE: [&str; 4] = ["buffer/", "memtable/", "table/cache/slots.rs", "vfs/disk.rs"];

fn unsafe_elsewhere(files: &[File]) -> Vec<String> {
    let opening = concat!("unsafe", " ");
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_library()) {
        for (number, line) in (1..).zip(file.text.lines()) {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains(opening)
                && !UNSAFE.iter().any(|at| file.is_in(&format!("storage/src/{at}")))
            {
                complaints.push(format!("{}:{number}: unsafe code is not for here", file.path));
            }
        }
    }
    complaints
}

#[test]
fn unsafe_code_is_where_the_rules_allow_it() {
    let planted = concat!("fn f() { unsafe", " { g() } }\n");
    check(unsafe_elsewhere, vec![plant("src/planted.rs", planted)]);
}

// --- Names ---------------------------------------------------------------------------------------

/// The name of a type that this line defines for other modules, if it defines one.
fn shared_type(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(restricted) => restricted.split_once(')')?.1,
        None => rest,
    };
    let rest = rest.strip_prefix(' ')?;
    let kinds = ["struct ", "enum ", "trait ", "type ", "union ", "unsafe trait "];
    let name = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

fn twin_types(files: &[File], twins: &[(&str, &str)]) -> Vec<String> {
    let mut places = BTreeMap::<&str, BTreeSet<&str>>::new();
    for file in files.iter().filter(|file| file.is_library()) {
        for name in file.text.lines().filter_map(shared_type) {
            places.entry(name).or_default().insert(&file.path);
        }
    }
    let mut complaints = Vec::new();
    for (name, paths) in &places {
        let is_known = twins.iter().any(|(twin, _)| twin == name);
        if (paths.len() > 1) != is_known {
            complaints.push(format!("`{name}` is defined in {paths:?}, listed: {is_known}"));
        }
    }
    complaints
}

#[test]
fn no_type_that_modules_share_has_the_name_of_another() {
    let planted = vec![
        plant("storage/src/planted.rs", "pub struct WriteBatch;\n"),
        plant("storage/src/planted.rs", "pub(super) enum WriteBatch {}\n"),
    ];
    check(|files| twin_types(files, TWINS), planted);
}

/// The words of an identifier, in small letters: those of `OneName` and `one_name` are the same.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        let last = words.last_mut().expect("it begins with one");
        if c == '_' || (c.is_uppercase() && !last.is_empty()) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().expect("there is one").extend(c.to_lowercase());
        }
    }
    words
}

/// Whether the name says nothing about its content.
fn is_empty_name(name: &str) -> bool {
    let banned = ["util", "utils", "helper", "helpers", "manager", "managers"];
    let words = words(name);
    let is_banned = words.iter().any(|word| banned.contains(&word.as_str()));
    words == ["common"] || (is_banned && !words.starts_with(&["version".into(), "manager".into()]))
}

fn empty_names(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for part in file.path.trim_end_matches(".rs").split('/').filter(|part| is_empty_name(part))
        {
            complaints.push(format!("{}: `{part}` says nothing", file.path));
        }
        for (number, line) in (1..).zip(file.text.lines()) {
            let mut previous = "";
            for name in line.split(|c: char| !c.is_alphanumeric() && c != '_') {
                let defines = ["struct", "enum", "trait", "mod", "type", "fn"].contains(&previous);
                if defines && !line.trim_start().starts_with("//") && is_empty_name(name) {
                    complaints.push(format!("{}:{number}: `{name}` says nothing", file.path));
                }
                previous = name;
            }
        }
    }
    complaints
}

#[test]
fn names_say_what_they_name() {
    let planted = vec![
        plant("src/utils.rs", ""),
        plant("src/common/mod.rs", ""),
        plant("src/planted.rs", concat!("pub struct Table", "Manager;\n")),
        plant("src/planted.rs", concat!("    fn write_", "helper() {}\n")),
    ];
    check(empty_names, planted);
    assert!(!is_empty_name("VersionManager") && !is_empty_name("common_prefix_len"));
}

// --- Documents -----------------------------------------------------------------------------------

/// Phrases that cite what is not in the repository. In this file they are in two parts.
fn outside(line: &str) -> Option<&'static str> {
    let small = line.to_lowercase();
    let phrases = [
        concat!("the ", "issue "),
        concat!("this ", "issue"),
        concat!("(", "issue "),
        concat!("the ", "audit"),
        concat!("of the ", "design"),
        concat!("the design ", "says"),
        concat!("design ", "section"),
        concat!("design", ".md"),
        concat!("structure", ".md"),
        concat!("seeds.md ", "section"),
        concat!("/work", "/"),
        concat!("research", "/"),
    ];
    phrases.into_iter().find(|phrase| small.contains(phrase))
}

fn cites_section_of_nothing(line: &str) -> bool {
    let section = concat!("section", " ");
    let numbered = |at: usize| line[at + section.len()..].starts_with(|c: char| c.is_ascii_digit());
    let cites = line.match_indices(section).any(|(at, _)| numbered(at));
    cites && !line.contains(".md") && !line.contains("http")
}

fn citations(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| !has_ending(&file.path, "toml")) {
        for (number, line) in (1..).zip(file.text.lines()) {
            let seed = concat!("seed", " 00");
            let cites_seed = line.to_lowercase().contains(seed) && file.path != "docs/seeds.md";
            if let Some(phrase) = outside(line) {
                complaints.push(format!("{}:{number}: cites `{phrase}`", file.path));
            } else if cites_seed || cites_section_of_nothing(line) {
                complaints.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    complaints
}

#[test]
fn nothing_outside_the_repository_is_cited() {
    let planted = vec![
        plant("src/planted.rs", concat!("// As the", " issue says.\n")),
        plant("src/planted.rs", concat!("// See section", " 4.\n")),
        plant("docs/planted.md", concat!("The rule of seed", " 002.\n")),
        plant("docs/planted.md", concat!("See design", ".md.\n")),
    ];
    check(citations, planted);
}

/// The named rules, each with the files that its entry names under "Upheld".
fn invariants(files: &[File]) -> Vec<(&str, BTreeSet<&str>)> {
    let document = files.iter().find(|file| file.path == "docs/invariants.md");
    let text = &document.expect("the document is there").text;
    let mut entries = Vec::new();
    for entry in text.split("\n**").skip(1) {
        let Some((name, rest)) = entry.split_once(".**") else { continue };
        let upheld = rest.split_once("*Upheld:*").map_or("", |(_, upheld)| upheld);
        let upheld = upheld.split("\n*").next().unwrap_or_default();
        let is_path = |part: &&str| has_ending(part, "rs") && !part.contains(' ');
        entries.push((name, upheld.split('`').filter(is_path).collect()));
    }
    entries
}

fn tags_and_entries(files: &[File]) -> Vec<String> {
    let opening = concat!("INVARIANT", "(");
    let mut tags = BTreeMap::<&str, BTreeSet<&str>>::new();
    for file in files.iter().filter(|file| file.is_library()) {
        for tag in file.text.split(opening).skip(1) {
            let name = tag.split(')').next().unwrap_or_default();
            if name.contains(' ') {
                continue;
            }
            tags.entry(name).or_default().insert(&file.path);
        }
    }
    let entries = invariants(files);
    let mut complaints = Vec::new();
    for (name, upheld) in &entries {
        let tagged = tags.remove(name).unwrap_or_default();
        // The kernel is independent: its headers state its guarantees.
        for path in upheld.difference(&tagged).filter(|path| !path.contains("/kernel/")) {
            complaints.push(format!("docs/invariants.md: {name}: {path} has no such tag"));
        }
        for path in tagged.difference(upheld) {
            complaints.push(format!("{path}: its tag {name} is not in docs/invariants.md"));
        }
    }
    // The names of an edit's checks in messages.
    let text = &files.iter().find(|file| file.path == "docs/invariants.md").expect("it is").text;
    for file in files.iter().filter(|file| file.is_library()) {
        for name in file.text.split(concat!("Conflict::", "new(")).skip(1) {
            let name = name.trim_start().strip_prefix('"').and_then(|name| name.split('"').next());
            let Some(name) = name else { continue };
            if !text.contains(&format!("`{name}`")) && !text.contains(&format!("**{name}.**")) {
                complaints.push(format!("{}: docs/invariants.md lacks {name}", file.path));
            }
        }
    }
    complaints.extend(tags.keys().map(|name| format!("docs/invariants.md has no entry {name}")));
    complaints
}

#[test]
fn invariants_are_upheld_where_their_document_says() {
    let tag = |name| format!("// {}{name})\n", concat!("INVARIANT", "("));
    let planted = vec![
        plant("src/planted.rs", tag("one-pointer")),
        plant("src/planted.rs", tag("never-heard-of")),
        plant("src/planted.rs", concat!("Conflict::", "new(\"never-heard-of\", what)")),
        // The planted file takes the place of the only one with the tag.
        plant("storage/src/points.rs", ""),
    ];
    check(tags_and_entries, planted);
}

/// Every module of the libraries has a row of its own in the code map.
fn unmapped(files: &[File]) -> Vec<String> {
    let map = chapter(files, "docs/ARCHITECTURE.md", "\n## Code map");
    // The kernel is a crate of its own, and describes its modules itself.
    let mut modules = BTreeSet::new();
    for file in files.iter().filter(|file| file.is_library()) {
        let Some((package, rest)) = ["actors/src/", "storage/src/", "src/"]
            .iter()
            .find_map(|package| Some((package, file.path.strip_prefix(package)?)))
        else {
            continue;
        };
        match rest.split_once('/') {
            // `recover.rs` counts for `recover/` as well.
            Some((folder, _))
                if files.iter().any(|f| f.path == format!("{package}{folder}.rs")) => {}
            Some((folder, _)) => drop(modules.insert(format!("{package}{folder}/"))),
            None if rest == "lib.rs" => {}
            None => drop(modules.insert(format!("{package}{rest}"))),
        }
    }
    let lacks = |module: &String| !map.contains(&format!("| `{module}` |"));
    let complain = |module| format!("docs/ARCHITECTURE.md: the code map lacks {module}");
    modules.into_iter().filter(lacks).map(complain).collect()
}

#[test]
fn the_code_map_names_every_module() {
    check(unmapped, vec![plant("src/planted.rs", ""), plant("storage/src/planted/mod.rs", "")]);
}

/// The folder of each actor has the files that the table of shapes says, but for those it excepts.
fn misshapen_actors(files: &[File]) -> Vec<String> {
    let packages = chapter(files, "docs/ARCHITECTURE.md", "\n## Packages");
    let row = |file: &str| {
        let opening = format!("| `{file}` |");
        packages.lines().find(|line| line.starts_with(&opening)).expect("a row").to_lowercase()
    };
    let has = |path: String| files.iter().any(|file| file.path == path);
    let mut complaints = Vec::new();
    for file in files {
        let Some(folder) = file.path.strip_suffix("/run.rs") else { continue };
        let Some(actor) = folder.strip_prefix("actors/src/") else { continue };
        for part in ["message.rs", "state.rs"] {
            let is_excepted = row(part).contains(&actor.replace('_', " "));
            if has(format!("{folder}/{part}")) == is_excepted {
                complaints.push(format!("{folder}/{part}: excepted: {is_excepted}"));
            }
        }
    }
    complaints
}

#[test]
fn each_actor_has_the_shape_that_the_architecture_says() {
    let planted =
        vec![plant("actors/src/reclaimer/state.rs", ""), plant("actors/src/planted/run.rs", "")];
    check(misshapen_actors, planted);
}
